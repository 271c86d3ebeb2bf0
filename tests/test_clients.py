"""Clients that others have written talk to a trained project's server: one that is generated from its OpenAPI document,
and Triton's, which speaks the Open Inference Protocol.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from projects import ROOT, make
from servers import NAME, OUTSIDE, started

pytestmark = [pytest.mark.real, pytest.mark.skipif(sys.platform != "linux", reason="uses 127.0.0.2")]

CLIENTS = ROOT / ".venv/clients/bin"


@pytest.fixture(scope="module")
def address(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of the server, whose worker is TorchServe's own."""
    make(ROOT, f"PYTHON={sys.executable}", ".venv/clients")
    with started(trained, tmp_path_factory.mktemp("server") / "home") as container:
        container.wait(lambda: container.probe() == 0, 120)
        yield f"{OUTSIDE}:{container.ports[0]}"


def run(folder: Path, script: str, *arguments: str) -> Any:
    """Run a client's script, and return what it prints as JSON."""
    command = [str(CLIENTS / "python"), "-c", script, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def generate(folder: Path) -> None:
    """Check the document openapi.json in a folder, and generate the package `client` from it, without a warning."""
    checked = subprocess.run([CLIENTS / "openapi-spec-validator", "openapi.json"], cwd=folder, capture_output=True)
    assert checked.returncode == 0, checked.stdout
    command = [str(CLIENTS / "openapi-python-client"), "generate", "--path", "openapi.json", "--output-path", "client"]
    formatter = os.environ | {"PATH": f"{CLIENTS}{os.pathsep}{os.environ['PATH']}"}
    options = ["--meta", "none", "--fail-on-warning"]
    made = subprocess.run([*command, *options], cwd=folder, env=formatter, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr


#: Asks for the golden request's instances, then with a text in place of a number, then for explanations of the first.
GENERATED = """
import json, sys
from client import Client
from client.api.default import predict
from client.models import Error, PredictRequest, PredictResponse

client = Client(base_url=sys.argv[1], raise_on_unexpected_status=True)
golden = json.load(open(sys.argv[2]))
first, *_ = golden["instances"]
good = predict.sync(client=client, body=PredictRequest.from_dict(golden), x_request_id="order-7", x_client_id="team-a")
wrong = PredictRequest.from_dict({"instances": [first | {"mean radius": "wide"}]})
bad = predict.sync(client=client, body=wrong)
explained = predict.sync(client=client, body=PredictRequest.from_dict({"instances": [first]}), explain=True)
assert isinstance(good, PredictResponse) and isinstance(bad, Error) and isinstance(explained, PredictResponse)
print(json.dumps([good.request_id, *(each.to_dict() for each in (good, bad, explained))]))
"""


def test_a_client_is_generated_that_reads_predictions_errors_and_explanations(
    address: str, trained: Path, tmp_path: Path
) -> None:
    with urllib.request.urlopen(f"http://{address}/openapi.json", timeout=30) as response:
        (tmp_path / "openapi.json").write_bytes(response.read())
    generate(tmp_path)
    golden = trained / "package/golden_request.json"
    identity, good, bad, explained = run(tmp_path, GENERATED, f"http://{address}", str(golden))
    expected = json.loads((trained / "package/golden_response.json").read_text())
    assert identity == "order-7"
    assert [each["label"] for each in good["predictions"]] == [each["label"] for each in expected["predictions"]]
    assert (good["model_version"], good["threshold"]) == (expected["model_version"], expected["threshold"])
    assert bad["errors"][0]["column"] == "mean radius" and bad["request_id"]
    (explanation,), (prediction,) = explained["explanations"], explained["predictions"]
    total = explanation["base"] + sum(explanation["contributions"].values())
    assert total == pytest.approx(prediction["probabilities"][prediction["label"]], abs=1e-5)


#: Asks for the rows of the golden request, by any version, by the one that the metadata name, and by another; then with
#: a column too few.
TRITON = """
import json, sys
import numpy
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

client, model = InferenceServerClient(sys.argv[1]), sys.argv[2]
rows = json.load(open(sys.argv[3]))["instances"][:-1]  # the last has no value at all, which numpy cannot say
assert client.is_server_live() and client.is_server_ready()
metadata, inputs = client.get_model_metadata(model), []
for each in metadata["inputs"]:
    values = numpy.array([row[each["name"]] for row in rows], dtype=numpy.float64)
    inputs.append(InferInput(each["name"], [len(rows)], each["datatype"]))
    inputs[-1].set_data_from_numpy(values, binary_data=False)
outputs = [InferRequestedOutput(each["name"], binary_data=False) for each in metadata["outputs"]]
versions, found = ["", metadata["versions"][0]], []
for version in versions:
    result = client.infer(model, inputs, model_version=version, outputs=outputs, request_id="42")
    labels, scores = result.as_numpy("label"), result.as_numpy(outputs[-1].name())
    found.append([result.get_response()["id"], labels.tolist(), scores.tolist()])
for wrong in ({"inputs": inputs, "model_version": "0" * 12}, {"inputs": inputs[1:]}):
    try:
        client.infer(model, outputs=outputs, **wrong)
    except InferenceServerException as error:
        found.append([error.status(), error.message()])
print(json.dumps(found))
"""


def test_tritons_client_speaks_the_open_inference_protocol(address: str, trained: Path, tmp_path: Path) -> None:
    golden = trained / "package/golden_request.json"
    first, second, version, column = run(tmp_path, TRITON, address, NAME, str(golden))
    expected = json.loads((trained / "package/golden_response.json").read_text())["predictions"][:-1]
    label = list(expected[0]["probabilities"])[-1]
    assert first == second
    assert (first[0], first[1]) == ("42", [each["label"] for each in expected])
    assert first[2] == pytest.approx([each["probabilities"][label] for each in expected], abs=1e-4)
    assert version[0] in ("404", "[404]", None) and "not '000000000000'" in version[1]
    assert "instance 0: column" in column[1] and "is missing" in column[1]


#: Prints the document of a table: argument 1 is its schema, 2 its prediction of a row.
DOCUMENT = """
import json, sys
from gitops.serving import openapi

schema, prediction = map(json.loads, sys.argv[1:])
print(json.dumps(openapi.document("hostile", "0" * 12, schema, {"predictions": [prediction]})))
"""

#: Sends a row as it is to a client's model and back.
ROUND_TRIP = """
import json, sys
from client.models import Instance

print(json.dumps(Instance.from_dict(json.loads(sys.argv[1])).to_dict()))
"""


@pytest.mark.parametrize(
    "prediction",
    [
        2.5,
        {"label": ">50K", "probabilities": {"<=50K": 0.25, ">50K": 0.75}},
        {"label": "a b", "probabilities": {"a b": 0.5, "a_b": 0.25, "class": 0.25}},
    ],
    ids=["regression", "binary", "multiclass"],
)
def test_a_client_is_generated_whatever_columns_and_classes_are_called(
    trained: Path, tmp_path: Path, prediction: Any
) -> None:
    make(ROOT, f"PYTHON={sys.executable}", ".venv/clients")
    names = [
        "mean radius",
        "mean_radius",
        "class",
        "from",
        "self",
        "1",
        "$ref",
        "a/b~c",
        'é"\\</script>{x}',
        "{{ y }}",
    ]
    dtypes = ["number", "boolean", "category", "datetime"] * 3
    features = [{"name": name, "dtype": dtype} for name, dtype in zip(names, dtypes, strict=False)]
    schema = {"features": features, "target": {"classes": []}, "id": "id", "timestamp": "date-time"}
    python, source = trained / ".venv/pipeline/bin/python", {"PYTHONPATH": str(trained / "src")}
    arguments = [DOCUMENT, json.dumps(schema), json.dumps(prediction)]
    written = subprocess.run([python, "-c", *arguments], env=os.environ | source, capture_output=True, text=True)
    (tmp_path / "openapi.json").write_text(written.stdout)
    generate(tmp_path)
    row = dict(zip(names, [1.5, True, "x", None] * 3, strict=False)) | {"id": 7}
    assert run(tmp_path, ROUND_TRIP, json.dumps(row)) == row

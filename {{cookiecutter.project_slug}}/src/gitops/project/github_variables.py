"""Variables and secrets of the repository that the workflows read."""

from __future__ import annotations

from gitops.project.github_calls import GitHub

#: Variables and their purpose. A test compares the names with .github/.
VARIABLES = {
    "TRAINING_RUNNER": "label of the runner that trains; without it a runner of GitHub's, which has no GPU",
    "MLFLOW_TRACKING_URI": "tracking server of the runs; without it their record is lost when the job ends",
    "MLFLOW_TRACKING_USERNAME": "user of the tracking server, if it requires one",
    "AWS_ROLE_ARN": "s3:// remote: role of main, which may read and write the bucket",
    "AWS_BRANCH_ROLE_ARN": "s3:// remote: role of other branches, which may write below branches/ only",
    "AWS_REGION": "s3:// remote: region of the bucket",
    "GCP_WORKLOAD_IDENTITY_PROVIDER": "gs:// remote: full name of the identity provider",
    "GCP_SERVICE_ACCOUNT": "gs:// remote: account of main, which may read and write the bucket",
    "GCP_BRANCH_SERVICE_ACCOUNT": "gs:// remote: account of other branches, which may write below branches/ only",
    "AZURE_CLIENT_ID": "azure:// remote: application of main, which may read and write the container",
    "AZURE_BRANCH_CLIENT_ID": "azure:// remote: application of other branches, which may write below branches/ only",
    "AZURE_TENANT_ID": "azure:// remote: tenant of the applications",
    "AZURE_SUBSCRIPTION_ID": "azure:// remote: subscription of the container",
    "AZURE_STORAGE_ACCOUNT": "azure:// remote: storage account of the container",
    "REQUEST_LOG": "address of the request log, such as s3://bucket/prefix; without it nothing is monitored",
    "REPLAY": "1: branches' runs replay the request log, which whoever can push may then read; without it none does",
    "LABELS": "address of the labels; without it performance in production is not measured",
    "REGISTRY_USERNAME": "user who pushes the image, if its registry is not ghcr.io",
    "TRAIN_ON_MAIN": "1: main trains again; without it a branch's model is released, whatever it was trained on",
    "FIRST_ENVIRONMENT": "environment that a merge is released to: set to staging here, if the project has that",
}
SECRETS = {
    "MLFLOW_TRACKING_PASSWORD": "password of MLFLOW_TRACKING_USERNAME",
    "REGISTRY_PASSWORD": "password of REGISTRY_USERNAME",
}
#: Secrets that `make github` makes.
KEYS = {
    "RELEASE_KEY": "deploy key with which releases are pushed; without it the job's own token pushes them",
    "COSIGN_PRIVATE_KEY": "key that signs the images of a private repository; without it they are not signed",
    "COSIGN_PASSWORD": "password of COSIGN_PRIVATE_KEY",
}


def set_variables(github: GitHub, values: dict[str, str]) -> None:
    for name, value in values.items():
        github.run("gh", "variable", "set", name, "--repo", github.repository, "--body", value)


def show(github: GitHub, environments: list[str]) -> None:
    """Print the variables and secrets, and whether each is set, in the repository or an environment."""
    print("\n# Variables and secrets that the workflows read; all are optional")
    present = github.names("variable") | github.names("secret")
    for name in environments:
        present |= github.names("secret", "--env", name)
    for kind, names in (("variable", VARIABLES), ("secret", SECRETS), ("secret", KEYS)):
        for name, purpose in names.items():
            state = "set" if name in present else "not set" if github.live else ""
            print(f"#   {state:8}{kind:10}{name:32}{purpose}")
    print("# A variable: make github ARGS='--variable NAME=VALUE'")
    print(f"# A secret, with a prompt: gh secret set NAME --repo {github.repository}; the last three are made here")
    subject = github.get("actions/oidc/customization/sub", otherwise={})
    prefix = subject.get("sub_claim_prefix") or f"repo:{github.repository}"
    print(f"# Subjects that a cloud trusts (docs/system-design.md, Cloud roles) begin with {prefix}")

#!/bin/sh
# Run one job: start.sh MODULE [OPTION ...]. The image cannot be written, so the project is copied to the working folder,
# and it is no clone: what a job needs of the repository, the release record, it fetches.
set -eu
rm -rf /job/project  # a container that died left it to the next one of its pod
mkdir /job/project
cd /project
find . -mindepth 1 -maxdepth 1 ! -name .venv -exec cp -r -t /job/project {} +
cd /job/project
ln -s /project/.venv .venv
git init --quiet
git remote add origin "$REPOSITORY"
for secret in /secrets/*; do
  if [ -f "$secret" ]; then
    export "$(basename "$secret")=$(cat "$secret")"
  fi
done
module=$1
shift
if [ "$module" = gitops.tuning.tune ]; then
  : "${TUNE_STORAGE:?is not in the Secret: each worker would search by itself}"
  .venv/pipeline/bin/dvc repro --quiet --pull prepare
fi
environment=pipeline
case $module in gitops.feature_store.*) environment=features ;; esac  # of a project with a feature store
if [ "$module" = gitops.feature_store.materialize ]; then  # main's present table, not that of the time when the image was built
  git fetch --quiet --depth 1 origin main
  git checkout --quiet FETCH_HEAD -- data params.yaml
  .venv/pipeline/bin/dvc pull --quiet data/*.dvc
fi
exec ".venv/$environment/bin/python" -m "$module" "$@"

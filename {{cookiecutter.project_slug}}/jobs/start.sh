#!/bin/sh
# Run one job: start.sh MODULE [OPTION ...]. The image is read-only, so the project is copied to the working folder. It is
# not a clone: a job fetches what it needs from the repository, such as the release record.
set -eu
rm -rf /job/project  # left by an earlier container of this pod that was killed
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
case $module in gitops.feature_store.*) environment=features ;; esac  # in a project with a feature store
if [ "$module" = gitops.feature_store.materialize ]; then  # main's current table, not the one from when the image was built
  git fetch --quiet --depth 1 origin main
  git checkout --quiet FETCH_HEAD -- data params.yaml
  .venv/pipeline/bin/dvc pull --quiet data/*.dvc
fi
exec ".venv/$environment/bin/python" -m "$module" "$@"

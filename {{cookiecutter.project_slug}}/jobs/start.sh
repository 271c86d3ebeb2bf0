#!/bin/sh
# Run one job: start.sh MODULE [OPTION ...]. The image is read-only, so the project is copied to the working folder. It is
# not a clone: a job fetches what it needs from the repository, such as the release record. A training fetches its commit, and
# runs that commit's code in the image's environments.
set -eu
for secret in /secrets/*; do  # keys; of a training, settings too
  if [ -f "$secret" ]; then
    export "$(basename "$secret")=$(cat "$secret")"
  fi
done
module=$1
shift
if [ "$module" = gitops.cluster.node ]; then
  if [ ! -e /job/fetched ]; then  # what an earlier container of this pod has left is gone on with: checkpoint, results
    rm -rf /job/project
    git init --quiet /job/project
    git -C /job/project remote add origin "$REPOSITORY"
    git -C /job/project fetch --quiet --depth 1 origin "$COMMIT"
    git -C /job/project checkout --quiet FETCH_HEAD
    touch /job/fetched
  fi
  cd /job/project
  rm -rf .dvc/tmp .venv  # DVC's locks of the earlier container
  export PYTHONPATH=/job/project/src
else
  rm -rf /job/project  # left by an earlier container of this pod that was killed
  mkdir /job/project
  cd /project
  find . -mindepth 1 -maxdepth 1 ! -name .venv -exec cp -r -t /job/project {} +
  cd /job/project
  git init --quiet
  git remote add origin "$REPOSITORY"
fi
ln -s /project/.venv .venv
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

# What a pod's workspace begins with: settings, keys and bundles by link, and the first workspace's journal, so that imported events are there.
set -e
ln -sfn /run/keys/keys.json /workspace/keys.json
ln -sfn /run/settings/tastemaker.toml /workspace/tastemaker.toml
ln -sfn /shared/bundles /workspace/bundles
if [ ! -d /workspace/journal ] && [ -d /shared/seed/journal ]; then
  rm -rf /workspace/journal.part
  cp -r /shared/seed/journal /workspace/journal.part
  mv /workspace/journal.part /workspace/journal
fi

#!/bin/sh
# Start OpenSearch with its configuration in memory: the file system of the container is read-only. The security plugin
# replaces `${envbc.NAME}` in its files by the hash of a variable, which only this process has.
set -eu
umask 077
cp -R /usr/share/opensearch/config/. /run/opensearch/
mkdir -p /run/opensearch/tls
cp /run/tls/tls.crt /run/tls/tls.key /run/tls/ca.crt /run/opensearch/tls/
cp /etc/headrace/opensearch.yml /run/opensearch/opensearch.yml
for file in roles.yml roles_mapping.yml internal_users.yml; do
    cp "/etc/headrace/$file" "/run/opensearch/opensearch-security/$file"
done
for name in OPENSEARCH_INDEX_PASSWORD OPENSEARCH_SEARCH_PASSWORD OPENSEARCH_PROBE_PASSWORD; do
    export "$name=$(cat "/run/secrets/$name")"
done
export OPENSEARCH_PATH_CONF=/run/opensearch
exec /usr/share/opensearch/opensearch-docker-entrypoint.sh opensearch

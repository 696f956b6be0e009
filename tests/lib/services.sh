# RabbitMQ and the MongoDB-wire server for tests, rootless and out of the way of anything else on the machine.
#
# Sourced by tests/run and bench/join-latency. start_services DIR leaves everything it makes under DIR, and exports
# SWITCHYARD_TEST_BROKER, SWITCHYARD_TEST_BROKER_ADMIN and SWITCHYARD_TEST_STORE. stop_services ends by process id
# what start_services started, and nothing else.

SERVICE_PIDS=()

# A TCP port of this host that nobody listens on, below the ephemeral range: a readiness probe on an
# ephemeral port can connect to itself.
free_port() {
  local port
  for _ in $(seq 200); do
    port=$((18000 + RANDOM % 14000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return 0
    fi
  done
  echo "no free port between 18000 and 32000" >&2
  return 1
}

# wait_until SECONDS COMMAND...: asks again until it succeeds or the time is over.
wait_until() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.1
  done
}

port_answers() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

rabbitmq_answers() {
  # The management plugin serves only once the broker behind it does.
  [ "$(curl -s -o /dev/null -w '%{http_code}' -u guest:guest --max-time 5 "http://127.0.0.1:$1/api/overview")" = 200 ]
}

start_rabbitmq() {
  local dir=$1 home=$1/rabbitmq port admin_port dist_port epmd_port
  port=$(free_port) admin_port=$(free_port) dist_port=$(free_port) epmd_port=$(free_port) || return 1
  mkdir -p "$home"/{log,mnesia,config,schema}
  echo '[rabbitmq_management].' >"$home/enabled_plugins"
  cat >"$home/rabbitmq.conf" <<CONF
listeners.tcp.default = 127.0.0.1:$port
management.tcp.ip = 127.0.0.1
management.tcp.port = $admin_port
management_agent.disable_metrics_collector = true
# A shared build machine may be short of either; the tests are small.
vm_memory_high_watermark.relative = 0.9
disk_free_limit.absolute = 50MB
CONF
  : >"$home/rabbitmq-env.conf"
  # Each open connection, queue and file costs a descriptor.
  ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
  env HOME="$home" ERL_EPMD_PORT="$epmd_port" ERL_EPMD_ADDRESS=127.0.0.1 \
    RABBITMQ_NODENAME="switchyard-test-$port@localhost" RABBITMQ_NODE_PORT="$port" RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 \
    RABBITMQ_DIST_PORT="$dist_port" RABBITMQ_MNESIA_BASE="$home/mnesia" RABBITMQ_LOG_BASE="$home/log" \
    RABBITMQ_CONFIG_FILE="$home/rabbitmq.conf" RABBITMQ_ENABLED_PLUGINS_FILE="$home/enabled_plugins" \
    RABBITMQ_PID_FILE="$home/pid" RABBITMQ_GENERATED_CONFIG_DIR="$home/config" RABBITMQ_SCHEMA_DIR="$home/schema" \
    RABBITMQ_CONF_ENV_FILE="$home/rabbitmq-env.conf" \
    setsid /usr/lib/rabbitmq/bin/rabbitmq-server >"$home/log/stdout" 2>&1 &
  SERVICE_PIDS+=($!)
  RABBITMQ_HOME=$home
  RABBITMQ_EPMD_PORT=$epmd_port
  if ! wait_until 90 rabbitmq_answers "$admin_port"; then
    echo "RabbitMQ did not start; the end of its log:" >&2
    tail -n 30 "$home/log/stdout" >&2
    return 1
  fi
  export SWITCHYARD_TEST_BROKER="amqp://guest:guest@127.0.0.1:$port/%2f"
  export SWITCHYARD_TEST_BROKER_ADMIN="http://guest:guest@127.0.0.1:$admin_port"
}

# start_store DIR SERVER: SERVER is the path of secantusd-py.
start_store() {
  local home=$1/store server=$2 port
  port=$(free_port) || return 1
  mkdir -p "$home"
  # Without --sync-on-commit it loses acknowledged writes when killed, which the tests of crashes would blame on us. What kills nothing
  # may do without: STORE_DURABILITY= (empty).
  env HOME="$home" setsid "$server" --host 127.0.0.1 --port "$port" --storage-path "$home/data" \
    ${STORE_DURABILITY---sync-on-commit} --log-level WARNING >"$home/log" 2>&1 &
  SERVICE_PIDS+=($!)
  if ! wait_until 60 port_answers "$port"; then
    echo "the MongoDB-wire server did not start; the end of its log:" >&2
    tail -n 30 "$home/log" >&2
    return 1
  fi
  export SWITCHYARD_TEST_STORE="mongodb://127.0.0.1:$port/?replicaSet=secantus"
}

start_services() {
  start_rabbitmq "$1" && start_store "$1" "$2"
}

# The processes of the process group led by $1 (each service leads its own).
group_alive() {
  kill -0 -- "-$1" 2>/dev/null
}

group_gone() {
  ! group_alive "$1"
}

# The process id of the epmd that belongs to our RabbitMQ: it daemonises itself out of every group, but carries
# our port in its environment.
our_epmd() {
  local pid environment
  for environment in /proc/[0-9]*/environ; do
    pid=${environment#/proc/} pid=${pid%/environ}
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = epmd ] || continue
    if tr '\0' '\n' <"$environment" 2>/dev/null | grep -qx "ERL_EPMD_PORT=$RABBITMQ_EPMD_PORT"; then
      echo "$pid"
    fi
  done
}

stop_services() {
  local pid
  for pid in "${SERVICE_PIDS[@]}"; do
    kill -TERM -- "-$pid" 2>/dev/null || true
  done
  for pid in "${SERVICE_PIDS[@]}"; do
    wait_until 10 group_gone "$pid" || kill -KILL -- "-$pid" 2>/dev/null || true
  done
  if [ -n "${RABBITMQ_EPMD_PORT:-}" ]; then
    for pid in $(our_epmd); do
      kill -TERM "$pid" 2>/dev/null || true
    done
  fi
  SERVICE_PIDS=()
}

"""Checks docker/ and k8s/ without a cluster or a container engine: against the public schemas, and against what the
binary really has (settings, routes, ports, the drain deadline, metrics). Needs kubectl, promtool, kubernetes-validate,
check-jsonschema and hadolint beside this Python; tests/run installs them.

`check.py renew` makes what k8s/ has copies of from docker/: the alert rules and the dashboard.
"""

import functools
import json
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = pathlib.Path(sys.executable).parent
KUBERNETES = "1.32"
OVERLAYS = ["single-node", "production"]
SETTINGS = set(re.findall(r'env = "(SWITCHYARD_\w+)"', (ROOT / "src/config/source.rs").read_text()))
ROUTES = {"/healthz", "/readyz", "/metrics"}
# What the schemas of Kubernetes itself do not know; each is looked at below.
CUSTOM = {"PodMonitor", "PrometheusRule", "ScaledObject", "RabbitmqCluster", "MongoDBCommunity"}
ALERTS = ROOT / "docker/prometheus/alerts.yaml"
DASHBOARD = ROOT / "docker/grafana/switchyard.json"
COPIES = ROOT / "k8s/components/monitoring"


def metrics():
    """The names of all series, as documented (and tests/single/metrics.rs holds the documentation true), and their labels."""
    table = (ROOT / "docs/METRICS.md").read_text()
    found = {}
    for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", table, re.MULTILINE):
        known = set(re.findall(r"`(\w+)`:", labels))
        endings = ["_bucket", "_sum", "_count"] if kind == "histogram" else [""]
        for ending in endings:
            found[name + ending] = known | ({"le"} if ending == "_bucket" else set())
    return found


# What every scrape has from Prometheus itself.
SCRAPED = {"up": set()}
TARGET_LABELS = {"job", "instance", "pod", "namespace"}


def rules():
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def rule_resource():
    """The alert rules as the Prometheus operator takes them."""
    head = "# Made of docker/prometheus/alerts.yaml by `check.py renew`.\n"
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "switchyard", "labels": {"release": "prometheus"}},
        "spec": yaml.safe_load(ALERTS.read_text()),
    }
    return head + yaml.safe_dump(resource, sort_keys=False, width=120)


def renew():
    (COPIES / "rules.yaml").write_text(rule_resource())
    shutil.copy(DASHBOARD, COPIES / DASHBOARD.name)


def run(*command):
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"{command[0]}: {done.stdout}{done.stderr}")
    return done.stdout


@functools.cache
def rendered(overlay):
    return run("kubectl", "kustomize", f"k8s/{overlay}")


def resources(overlay):
    return {(it["kind"], it["metadata"]["name"]): it for it in yaml.safe_load_all(rendered(overlay))}


def part(overlay, name):
    """The pod of one part and its only container."""
    pod = resources(overlay)[("Deployment", f"switchyard-{name}")]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def settings(overlay):
    """The generated settings, without what the secret holds."""
    maps = [
        it
        for (kind, _), it in resources(overlay).items()
        if kind == "ConfigMap" and "dashboard" not in it["metadata"]["name"]
    ]
    (found,) = maps
    return found["data"]


class Kubernetes(unittest.TestCase):
    def test_every_overlay_keeps_to_the_schemas(self):
        for overlay in OVERLAYS:
            with self.subTest(overlay):
                file = ROOT / f"target/test-env/{overlay}.yaml"
                known = [it for it in yaml.safe_load_all(rendered(overlay)) if it["kind"] not in CUSTOM]
                file.write_text(yaml.safe_dump_all(known))
                run(TOOLS / "kubernetes-validate", "--strict", "-k", KUBERNETES, file)

    def test_probes_ask_routes_that_exist_at_ports_that_are_bound(self):
        for overlay in OVERLAYS:
            for name, setting in [("api", "SWITCHYARD_LISTEN"), ("worker", "SWITCHYARD_ADMIN_LISTEN")]:
                with self.subTest(overlay=overlay, part=name):
                    _, container = part(overlay, name)
                    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
                    bound = int(settings(overlay)[setting].rsplit(":", 1)[1])
                    for probe in ["livenessProbe", "readinessProbe"]:
                        get = container[probe]["httpGet"]
                        self.assertIn(get["path"], ROUTES)
                        self.assertEqual(ports[get["port"]], bound)

    def test_what_is_scraped_is_the_port_for_operators(self):
        found = resources("production")
        for name in ["api", "worker"]:
            _, container = part("production", name)
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            (end,) = found[("PodMonitor", f"switchyard-{name}")]["spec"]["podMetricsEndpoints"]
            self.assertIn(end["path"], ROUTES)
            self.assertEqual(ports[end["port"]], int(settings("production")["SWITCHYARD_ADMIN_LISTEN"].rsplit(":", 1)[1]))
            deployment = found[("Deployment", f"switchyard-{name}")]["spec"]["template"]["metadata"]
            self.assertEqual(deployment["annotations"]["prometheus.io/port"], str(ports[end["port"]]))
            wanted = found[("PodMonitor", f"switchyard-{name}")]["spec"]["selector"]["matchLabels"].items()
            self.assertLessEqual(wanted, deployment["labels"].items())
        # No way leads there from outside.
        service = found[("Service", "switchyard-api")]["spec"]["ports"]
        self.assertEqual([port["targetPort"] for port in service], ["http"])

    def test_liveness_does_not_depend_on_broker_and_store(self):
        for overlay in OVERLAYS:
            for name in ["api", "worker"]:
                _, container = part(overlay, name)
                self.assertEqual(container["livenessProbe"]["httpGet"]["path"], "/healthz")

    def test_media_goes_to_the_port_that_the_worker_binds(self):
        for overlay in OVERLAYS:
            pod, container = part(overlay, "worker")
            self.assertTrue(pod["hostNetwork"])
            media = {port["protocol"]: port for port in container["ports"] if port["name"].startswith("media")}
            self.assertEqual(set(media), {"UDP", "TCP"})
            for port in media.values():
                self.assertEqual(port["containerPort"], port["hostPort"])
                self.assertEqual(str(port["hostPort"]), settings(overlay)["SWITCHYARD_MEDIA_PORT"])

    def test_a_worker_has_the_time_to_drain(self):
        for overlay in OVERLAYS:
            pod, _ = part(overlay, "worker")
            drain = int(settings(overlay)["SWITCHYARD_DRAIN_TIMEOUT"])
            self.assertGreaterEqual(pod["terminationGracePeriodSeconds"], drain + 10)

    def test_scaling_in_leaves_each_worker_the_time_to_drain(self):
        for overlay, kind in [("production", "ScaledObject"), ("base", "HorizontalPodAutoscaler")]:
            spec = resources(overlay)[(kind, "switchyard-worker")]["spec"]
            spec = spec["advanced"]["horizontalPodAutoscalerConfig"] if kind == "ScaledObject" else spec
            (policy,) = spec["behavior"]["scaleDown"]["policies"]
            pod, _ = part(overlay, "worker")
            self.assertEqual((policy["type"], policy["value"]), ("Pods", 1))
            self.assertGreater(policy["periodSeconds"], pod["terminationGracePeriodSeconds"])
            self.assertEqual(spec["behavior"]["scaleUp"]["stabilizationWindowSeconds"], 0)

    def test_workers_scale_by_their_own_load(self):
        found = resources("production")
        scaler = found[("ScaledObject", "switchyard-worker")]["spec"]
        self.assertIn(("Deployment", scaler["scaleTargetRef"]["name"]), found)
        self.assertNotIn(("HorizontalPodAutoscaler", "switchyard-worker"), found, "two would pull at one deployment")
        queries = [it["metadata"]["query"] for it in scaler["triggers"] if it["type"] == "prometheus"]
        self.assertTrue(any("switchyard_worker_load" in query for query in queries))
        for query in queries:
            assert_known(self, query)

    def test_workers_are_apart(self):
        for overlay in OVERLAYS:
            pod, _ = part(overlay, "worker")
            (rule,) = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            self.assertEqual(rule["topologyKey"], "kubernetes.io/hostname")
            template = resources(overlay)[("Deployment", "switchyard-worker")]["spec"]["template"]
            self.assertLessEqual(rule["labelSelector"]["matchLabels"].items(), template["metadata"]["labels"].items())
            for spread in pod["topologySpreadConstraints"]:
                self.assertLessEqual(spread["labelSelector"]["matchLabels"].items(), template["metadata"]["labels"].items())

    def test_an_api_pod_outlives_the_news_of_its_end_and_the_longest_poll(self):
        for overlay in OVERLAYS:
            pod, container = part(overlay, "api")
            pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            self.assertGreaterEqual(pod["terminationGracePeriodSeconds"], pause + 30)

    def test_policies_name_pods_and_ports_that_exist(self):
        for overlay in OVERLAYS:
            found = resources(overlay)
            templates = [
                it["spec"]["template"]
                for (kind, _), it in found.items()
                if kind in ("Deployment", "StatefulSet", "DaemonSet")
            ]
            for (kind, name), it in found.items():
                if kind != "NetworkPolicy":
                    continue
                wanted = it["spec"]["podSelector"]["matchLabels"].items()
                pods = [pod for pod in templates if wanted <= pod["metadata"]["labels"].items()]
                # Pods that an operator makes are not here.
                if not pods:
                    self.assertIn(name, ["rabbitmq", "mongodb"], overlay)
                    self.assertEqual(overlay, "production")
                    continue
                names = {port["name"] for pod in pods for end in pod["spec"]["containers"] for port in end["ports"]}
                for rule in it["spec"].get("ingress", []):
                    for port in rule.get("ports", []):
                        self.assertIn(port["port"], names, name)

    def test_broker_and_store_outlive_one_of_their_nodes(self):
        found = resources("production")
        broker, store = found[("RabbitmqCluster", "rabbitmq")]["spec"], found[("MongoDBCommunity", "mongodb")]["spec"]
        self.assertEqual((broker["replicas"], store["members"], store["type"]), (3, 3, "ReplicaSet"))
        self.assertTrue(broker["image"].startswith("rabbitmq:4"))
        self.assertIn("podAntiAffinity", broker["affinity"])
        for node in (broker, store["statefulSet"]["spec"]["template"]["spec"]["containers"][0]):
            self.assertIn("requests", node["resources"])

    def test_every_setting_is_one_of_the_binary(self):
        secret = (ROOT / "k8s/single-node/secret.env").read_text()
        named = {line.split("=", 1)[0] for line in secret.splitlines() if line}
        for overlay in OVERLAYS:
            named |= set(settings(overlay))
            for name in ["api", "worker"]:
                named |= {env["name"] for env in part(overlay, name)[1].get("env", [])}
        self.assertLessEqual(named, SETTINGS)
        for needed in ["SWITCHYARD_API_KEYS", "SWITCHYARD_BROKER", "SWITCHYARD_STORE"]:
            self.assertIn(needed, named)

    def test_containers_have_no_rights_that_they_do_not_need(self):
        for overlay in OVERLAYS:
            for name in ["api", "worker"]:
                pod, container = part(overlay, name)
                self.assertTrue(pod["securityContext"]["runAsNonRoot"])
                self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                self.assertTrue(container["securityContext"]["readOnlyRootFilesystem"])
                self.assertLessEqual({"cpu", "memory"}, set(container["resources"]["requests"]))
                self.assertIn("memory", container["resources"]["limits"])
                # A limit on CPU would hold packets back although there is CPU.
                self.assertNotIn("cpu", container["resources"]["limits"])
                self.assertFalse(pod["automountServiceAccountToken"])
                self.assertFalse(container["securityContext"]["allowPrivilegeEscalation"])
                self.assertEqual(container["securityContext"]["capabilities"], {"drop": ["ALL"]})

    def test_budgets_and_scalers_point_at_what_exists(self):
        found = resources("production")
        for (kind, name), it in found.items():
            if kind == "HorizontalPodAutoscaler":
                target = it["spec"]["scaleTargetRef"]
                self.assertIn((target["kind"], target["name"]), found)
            if kind == "PodDisruptionBudget":
                wanted = it["spec"]["selector"]["matchLabels"].items()
                pods = [it["spec"]["template"]["metadata"]["labels"] for (kind, _), it in found.items() if kind == "Deployment"]
                self.assertTrue(any(wanted <= labels.items() for labels in pods), name)


class Docker(unittest.TestCase):
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())

    def test_the_image_keeps_to_good_practice(self):
        run(TOOLS / "hadolint", "docker/Dockerfile")

    def test_the_composition_keeps_to_the_schema(self):
        run(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker/compose.yaml")

    def test_every_setting_is_one_of_the_binary(self):
        image = set(re.findall(r"(SWITCHYARD_\w+)=", (ROOT / "docker/Dockerfile").read_text()))
        self.assertLessEqual(image, SETTINGS)
        self.assertEqual(self.compose["x-environment"].keys() - SETTINGS, set())
        for name, service in self.compose["services"].items():
            environment = {key for key in service.get("environment", {}) if key.startswith("SWITCHYARD_")}
            self.assertLessEqual(environment, SETTINGS, name)

    def test_each_worker_announces_the_port_that_is_published(self):
        workers = {name: it for name, it in self.compose["services"].items() if name.startswith("worker-")}
        self.assertEqual(len(workers), 3)
        ports = [it["environment"]["SWITCHYARD_MEDIA_PORT"] for it in workers.values()]
        self.assertEqual(len(set(ports)), 3)
        for port, worker in zip(ports, workers.values()):
            self.assertEqual(worker["ports"], [f"{port}:{port}/udp", f"{port}:{port}/tcp"])

    def test_a_stopped_worker_has_the_time_to_drain(self):
        for name, service in self.compose["services"].items():
            if name.startswith("worker-"):
                self.assertGreaterEqual(int(service["stop_grace_period"].rstrip("s")), 70, name)


    def test_prometheus_scrapes_every_part(self):
        scraped = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yaml").read_text())["scrape_configs"]
        targets = {target for job in scraped for static in job["static_configs"] for target in static["targets"]}
        admin = self.compose["x-environment"]["SWITCHYARD_ADMIN_LISTEN"].rsplit(":", 1)[1]
        parts = {name for name in self.compose["services"] if name.startswith(("api-", "worker-"))}
        self.assertEqual(len(parts), 5)
        self.assertLessEqual({f"{name}:{admin}" for name in parts}, targets)
        for target in targets:
            self.assertIn(target.rsplit(":", 1)[0], self.compose["services"])

    def test_what_is_mounted_exists(self):
        for name, service in self.compose["services"].items():
            for volume in service.get("volumes", []):
                source = volume.split(":", 1)[0]
                if source.startswith("."):
                    self.assertTrue((ROOT / "docker" / source).exists(), f"{name}: {source}")
                else:
                    self.assertIn(source, self.compose["volumes"], name)

    def test_clients_get_the_secret_that_the_turn_server_has(self):
        secret = self.compose["services"]["api-1"]["environment"]["SWITCHYARD_TURN_SECRET"]
        self.assertIn(f"--static-auth-secret={secret}", self.compose["services"]["coturn"]["command"])


def assert_known(test, query):
    """Every series and label of a query exists."""
    known = metrics() | SCRAPED
    names = set(re.findall(r"\b((?:switchyard|process)_\w+|up)\b", query))
    test.assertTrue(names, f"no metric in {query}")
    for name in names:
        test.assertIn(name, known, query)
    labels = set().union(*(known[name] for name in names)) | TARGET_LABELS
    grouped = [word for group in re.findall(r"(?:by|on|without) \(([^)]*)\)", query) for word in group.split(",")]
    matched = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", query)
    for label in [word.strip() for word in grouped] + matched:
        test.assertIn(label, labels, query)
    # A histogram's quantile is one of its buckets, and nothing else has them.
    test.assertEqual("histogram_quantile" in query, any(name.endswith("_bucket") for name in names), query)


class Watching(unittest.TestCase):
    def test_the_rules_are_valid_and_do_what_they_say(self):
        run("promtool", "check", "rules", ALERTS)
        run("promtool", "test", "rules", "tests/deploy/alerts.test.yaml")
        run("promtool", "check", "config", "--syntax-only", "docker/prometheus/prometheus.yaml")

    def test_every_alert_asks_for_what_is_measured(self):
        for rule in rules():
            assert_known(self, rule["expr"])
            self.assertIn(rule["labels"]["severity"], ["warning", "critical"])
            self.assertTrue(rule["annotations"]["summary"], rule["alert"])

    def test_every_alert_has_its_cause_check_and_action(self):
        page = (ROOT / "docs/OPERATIONS.md").read_text()
        sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL))
        alerts = {rule["alert"]: rule for rule in rules()}
        for name, rule in alerts.items():
            self.assertEqual(rule["annotations"]["runbook_url"], f"docs/OPERATIONS.md#{name.lower()}")
            for word in ["Cause", "Check", "Action"]:
                self.assertRegex(sections[name], rf"- \*\*{word}:\*\* \S", name)
        written = {name for name in sections if name.startswith("Switchyard")}
        self.assertEqual(written, set(alerts), "a section for each alert, and no other")
        for name in set(re.findall(r"`((?:switchyard|process)_\w+)", page)):
            known = metrics() | {key.removesuffix("_count"): () for key in metrics()}
            self.assertIn(name, known, "docs/OPERATIONS.md")

    def test_every_panel_asks_for_what_is_measured(self):
        dashboard = json.loads(DASHBOARD.read_text())
        panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
        self.assertGreater(len(panels), 20)
        for panel in panels:
            self.assertEqual(panel["datasource"]["uid"], "${datasource}")
            for target in panel["targets"]:
                assert_known(self, target["expr"])
        ids = [panel["id"] for panel in dashboard["panels"]]
        self.assertEqual(len(ids), len(set(ids)))

    def test_every_query_can_be_parsed(self):
        dashboard = json.loads(DASHBOARD.read_text())
        queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
        recorded = {"groups": [{"name": "queries", "rules": []}]}
        for number, query in enumerate(queries):
            recorded["groups"][0]["rules"].append({"record": f"panel:{number}", "expr": query})
        file = ROOT / "target/test-env/dashboard-queries.yaml"
        file.write_text(yaml.safe_dump(recorded))
        run("promtool", "check", "rules", file)

    def test_the_copies_for_kubernetes_are_the_same(self):
        self.assertEqual((COPIES / "rules.yaml").read_text(), rule_resource(), "python3 tests/deploy/check.py renew")
        self.assertEqual((COPIES / DASHBOARD.name).read_text(), DASHBOARD.read_text(), "python3 tests/deploy/check.py renew")


if __name__ == "__main__":
    if sys.argv[1:] == ["renew"]:
        renew()
        sys.exit()
    (ROOT / "target/test-env").mkdir(parents=True, exist_ok=True)
    result = unittest.main(verbosity=2, exit=False).result
    failures = len(result.failures) + len(result.errors)
    # The line that tests/run counts.
    print(f"# pass {result.testsRun - failures}")
    print(f"# fail {failures}")
    sys.exit(0 if failures == 0 else 1)

"""Checks docker/ and k8s/ without a cluster or a container engine: against the public schemas, and against what the
binary really has (settings, routes, ports, the drain deadline). Needs kubectl, kubernetes-validate, check-jsonschema and
hadolint beside this Python; tests/run installs them.
"""

import pathlib
import re
import subprocess
import sys
import unittest

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = pathlib.Path(sys.executable).parent
KUBERNETES = "1.32"
OVERLAYS = ["single-node", "production"]
SETTINGS = set(re.findall(r'env = "(SWITCHYARD_\w+)"', (ROOT / "src/config.rs").read_text()))
ROUTES = {"/healthz", "/readyz", "/metrics"}


def run(*command):
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"{command[0]}: {done.stdout}{done.stderr}")
    return done.stdout


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
    maps = [it for (kind, _), it in resources(overlay).items() if kind == "ConfigMap"]
    (found,) = maps
    return found["data"]


class Kubernetes(unittest.TestCase):
    def test_every_overlay_keeps_to_the_schemas(self):
        for overlay in OVERLAYS:
            with self.subTest(overlay):
                file = ROOT / f"target/test-env/{overlay}.yaml"
                file.write_text(rendered(overlay))
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

    def test_liveness_does_not_depend_on_broker_and_store(self):
        for overlay in OVERLAYS:
            for name in ["api", "worker"]:
                _, container = part(overlay, name)
                self.assertEqual(container["livenessProbe"]["httpGet"]["path"], "/healthz")

    def test_media_goes_to_the_port_that_the_worker_binds(self):
        for overlay in OVERLAYS:
            pod, container = part(overlay, "worker")
            (media,) = [port for port in container["ports"] if port.get("protocol") == "UDP"]
            self.assertTrue(pod["hostNetwork"])
            self.assertEqual(media["containerPort"], media["hostPort"])
            self.assertEqual(str(media["hostPort"]), settings(overlay)["SWITCHYARD_MEDIA_PORT"])

    def test_a_worker_has_the_time_to_drain(self):
        for overlay in OVERLAYS:
            pod, _ = part(overlay, "worker")
            drain = int(settings(overlay)["SWITCHYARD_DRAIN_TIMEOUT"])
            self.assertGreaterEqual(pod["terminationGracePeriodSeconds"], drain + 10)

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
        for name, service in self.compose["services"].items():
            environment = {key for key in service.get("environment", {}) if key.startswith("SWITCHYARD_")}
            self.assertLessEqual(environment, SETTINGS, name)

    def test_each_worker_announces_the_port_that_is_published(self):
        workers = {name: it for name, it in self.compose["services"].items() if name.startswith("worker-")}
        self.assertEqual(len(workers), 3)
        ports = [it["environment"]["SWITCHYARD_MEDIA_PORT"] for it in workers.values()]
        self.assertEqual(len(set(ports)), 3)
        for port, worker in zip(ports, workers.values()):
            self.assertEqual(worker["ports"], [f"{port}:{port}/udp"])

    def test_a_stopped_worker_has_the_time_to_drain(self):
        for name, service in self.compose["services"].items():
            if name.startswith("worker-"):
                self.assertGreaterEqual(int(service["stop_grace_period"].rstrip("s")), 70, name)


if __name__ == "__main__":
    result = unittest.main(verbosity=2, exit=False).result
    failures = len(result.failures) + len(result.errors)
    # The line that tests/run counts.
    print(f"# pass {result.testsRun - failures}")
    print(f"# fail {failures}")
    sys.exit(0 if failures == 0 else 1)

//! The binary's own promises: what is wrong with a configuration is said before any port is bound, with an exit code
//! of its own; without API keys nothing but loopback is served; SIGTERM ends it in order.

use std::net::TcpListener;

use support::process::{Process, run_to_end};

/// `EX_CONFIG` of sysexits.h.
const EX_CONFIG: i32 = 78;

/// Runs with arguments that must be refused, on a port that would answer if it were bound.
fn refused(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = run_to_end(arguments, environment);
    assert_eq!(output.status.code(), Some(EX_CONFIG), "{arguments:?} {environment:?}: {output:?}");
    assert!(!output.stdout.contains("listening"), "{output:?}");
    output.stderr
}

#[test]
fn each_bad_setting_is_named_with_its_reason() {
    for (arguments, setting) in [
        (&["--broker", "ftp://somewhere"][..], "broker"),
        (&["--store", "postgres://somewhere"], "store"),
        (&["--listen", "nowhere"], "listen"),
        (&["--media-port", "70000"], "media_port"),
        (&["--public-address", "example"], "public_address"),
        (&["--api-keys", "no-secret"], "api_keys"),
        (&["--demo", "perhaps"], "demo"),
        (&["api"], "broker"),
        (&["worker"], "broker"),
    ] {
        let message = refused(arguments, &[]);
        assert!(message.contains(setting), "{arguments:?}: {message}");
    }
}

#[test]
fn flags_environment_and_file_share_their_names() {
    let message = refused(&[], &[("SWITCHYARD_MEDIA_PORT", "many")]);
    assert!(message.contains("media_port") && message.contains("many"), "{message}");

    let folder = std::env::temp_dir().join(format!("switchyard-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("switchyard.toml");
    std::fs::write(&file, "media_port = \"many\"\n").unwrap();
    let message = refused(&["--config", file.to_str().unwrap()], &[]);
    assert!(message.contains("media_port") && message.contains("many"), "{message}");
    std::fs::write(&file, "colour = \"blue\"\n").unwrap();
    let message = refused(&["--config", file.to_str().unwrap()], &[]);
    assert!(message.contains("colour"), "{message}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_secret_is_never_repeated() {
    let message = refused(&["--api-keys", "key:short-secret"], &[]);
    assert!(!message.contains("short-secret"), "{message}");
}

#[test]
fn nothing_is_bound_before_the_configuration_is_right() {
    // The port is taken: a process that bound first would complain about that instead.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let message = refused(&["--listen", &listen, "--media-port", "many"], &[]);
    assert!(message.contains("media_port") && !message.contains("in use"), "{message}");
}

#[test]
fn without_api_keys_only_loopback_is_served() {
    let message = refused(&["--listen", "0.0.0.0:0"], &[]);
    assert!(message.contains("api_keys") && message.contains("loopback"), "{message}");
}

#[test]
fn without_api_keys_a_development_key_is_made_and_said() {
    let mut process = Process::start("keyless", &["--listen", "127.0.0.1:0", "--media-port", "0"], &[]);
    let url = process.url();
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    assert!(process.line("switchyard: no API keys are set").contains("loopback only"));
    let key = process.line("switchyard: development key for this run: ");
    assert!(key.split_once(':').is_some_and(|(_, secret)| secret.len() >= 32), "{key}");
    let link = process.line("switchyard: admin page, for an hour: ");
    assert!(link.starts_with(&format!("{url}/admin/#token=")), "{link}");
    assert!(process.stop().success());
}

#[tokio::test]
async fn an_admin_link_is_signed_without_asking_anybody_and_opens_the_running_server() {
    let keys = ["--api-keys", "app:an-applications-secret,ops:an-operators-secret"];
    let arguments = [keys[0], keys[1], "--operator-keys", "ops"];
    let mut process = Process::start(
        "operated",
        &[&arguments[..], &["--listen", "127.0.0.1:0", "--media-port", "0"]].concat(),
        &[],
    );
    let url = process.url();
    let link = |more: &[&str]| {
        let output = run_to_end(&[&["admin-link", "--public-url", &url][..], more].concat(), &[]);
        (output.status.code(), output.stdout.trim().to_owned(), output.stderr)
    };
    let (status, signed, _) = link(&arguments);
    assert_eq!(status, Some(0));
    let token = signed.strip_prefix(&format!("{url}/admin/#token=")).expect("a link to the admin page");
    let asked = reqwest::Client::new().get(format!("{url}/v1/workers")).bearer_auth(token).send();
    assert_eq!(asked.await.unwrap().status(), 200);
    // Without an operator's key there is nobody to sign it.
    let (status, printed, message) = link(&keys);
    assert_eq!((status, printed.as_str()), (Some(EX_CONFIG), ""));
    assert!(message.contains("operator_keys"), "{message}");
    assert!(tokio::task::spawn_blocking(move || process.stop()).await.unwrap().success());
}

#[test]
fn a_taken_port_is_an_error_that_says_so() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let output = run_to_end(&["--listen", &listen, "--media-port", "0"], &[]);
    assert!(!output.status.success(), "{output:?}");
    assert!(output.stderr.contains(&listen), "{output:?}");
}

#[test]
fn help_names_every_part_and_setting() {
    let output = run_to_end(&["--help"], &[]);
    assert!(output.status.success(), "{output:?}");
    for word in [
        "api",
        "worker",
        "--broker",
        "--store",
        "--listen",
        "--media-port",
        "--public-address",
        "--api-keys",
        "SWITCHYARD_BROKER",
        "SWITCHYARD_API_KEYS",
        "--config",
    ] {
        assert!(output.stdout.contains(word), "{word} is missing: {}", output.stdout);
    }
}

#[tokio::test]
async fn it_ends_in_order_when_asked_to() {
    let mut deployment = support::Deployment::start(support::Shape::Embedded).await;
    let room = deployment.room().await;
    let client = room.join("someone").await;
    let process = deployment.apis.remove(0);
    let status = process.stop();
    assert_eq!(status.code(), Some(0));
    drop(client);
}

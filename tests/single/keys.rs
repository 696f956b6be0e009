//! API keys in a file: rotated under the running binary, and kept when the file is no good.

use std::path::PathBuf;

use futures::StreamExt as _;
use serde_json::json;
use support::process::{ON_LOOPBACK, Process};
use support::{Http, eventually};
use tokio_tungstenite::tungstenite::Message;

const OLD: &str = "the-old-secret-of-this-key";
const NEW: &str = "the-new-secret-of-this-key";

struct Rotating {
    process: Process,
    file: PathBuf,
    url: String,
    _folder: tempfile::TempDir,
}

impl Rotating {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        std::fs::write(&file, format!("# the application's\nkey:{OLD}\n")).unwrap();
        let arguments = [&ON_LOOPBACK[..], &["--api-keys-file", file.to_str().unwrap()]].concat();
        let mut process = Process::start("all", &arguments, &[]);
        let url = process.url();
        Self { process, file, url, _folder: folder }
    }

    /// As whoever rotates should: whole, by a rename.
    fn write(&self, text: &str) {
        let next = self.file.with_extension("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, &self.file).unwrap();
    }

    fn backend(&self, secret: &str) -> Http {
        Http::new(std::slice::from_ref(&self.url)).with_key("key", secret)
    }

    /// Waits until this secret is answered so.
    async fn until(&self, secret: &str, status: u16) {
        eventually(&format!("{status} for a secret"), || async {
            let answer = self.backend(secret).get("/v1/sessions").await;
            if answer.status == status { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_rotated_with_an_overlap_and_without_a_restart() {
    let rotating = Rotating::start();
    let backend = rotating.backend(OLD);
    let created = backend.post("/v1/sessions", &json!({})).await.expect(201);
    let session = created["session"]["id"].as_str().unwrap();
    let guest = backend.with_token(created["token"].as_str().unwrap());
    let path = format!("/v1/sessions/{session}/participants");
    let joined = guest.post(&path, &json!({})).await.expect(201);
    let (id, token) = (joined["participant"]["id"].as_str().unwrap(), joined["token"].as_str().unwrap());
    let socket = format!("{}{path}/{id}/events/ws?access_token={token}", rotating.url.replace("http", "ws"));
    let (mut socket, _) = tokio_tungstenite::connect_async(socket).await.unwrap();

    rotating.write(&format!("key:{NEW}\nkey:{OLD}\n"));
    rotating.until(NEW, 200).await;
    backend.get("/v1/sessions").await.expect(200);
    let own = backend.with_token(token);
    let renewed = own.post(&format!("{path}/{id}/token"), &json!({})).await.expect(200);

    rotating.write(&format!("key:{NEW}\n"));
    let code = loop {
        match socket.next().await {
            Some(Ok(Message::Close(Some(frame)))) => break u16::from(frame.code),
            Some(Ok(_)) => {}
            other => panic!("the stream ends with a code: {other:?}"),
        }
    };
    assert_eq!(code, 4004);
    backend.get("/v1/sessions").await.expect_problem(401, "unauthorized");
    own.get(&format!("{path}/{id}")).await.expect_problem(401, "unauthorized");
    let renewed = own.with_token(renewed["token"].as_str().unwrap());
    renewed.get(&format!("{path}/{id}")).await.expect(200);
    let log = rotating.process.log();
    assert!(!log.contains(OLD) && !log.contains(NEW), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_no_good_leaves_the_keys_as_they_are_and_is_named() {
    let rotating = Rotating::start();
    rotating.until(OLD, 200).await;
    rotating.write("key:too-short\n");
    eventually("the log says so", || async {
        let log = rotating.process.log();
        if log.contains("the keys stay as they are") && !log.contains("too-short") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    rotating.backend(OLD).get("/v1/sessions").await.expect(200);
    std::fs::remove_file(&rotating.file).unwrap();
    eventually("the log says that it is gone", || async {
        let log = rotating.process.log();
        if log.matches("the keys stay as they are").count() == 2 { Ok(()) } else { Err(log) }
    })
    .await;
    rotating.backend(OLD).get("/v1/sessions").await.expect(200);
    rotating.write(&format!("key:{NEW}\n"));
    rotating.until(NEW, 200).await;
    rotating.backend(OLD).get("/v1/sessions").await.expect_problem(401, "unauthorized");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hangup_reads_the_file_and_ends_nothing() {
    let mut rotating = Rotating::start();
    eventually("it follows the file", || async {
        let log = rotating.process.log();
        if log.contains("the API keys of the file count from now on") { Ok(()) } else { Err(log) }
    })
    .await;
    rotating.write(&format!("key:{NEW}\n"));
    rotating.process.hang_up();
    rotating.until(NEW, 200).await;
    assert!(rotating.process.running());
}

//! `switchyard health`, which container health checks run.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use support::process::run_to_end;
use support::{Deployment, Shape};

fn ask(addresses: &[SocketAddr]) -> support::process::Output {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let arguments: Vec<&str> =
        std::iter::once("health").chain(addresses.iter().map(String::as_str)).collect();
    run_to_end(&arguments, &[])
}

fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_address_that_answers_decides() {
    let deployment = Deployment::start(Shape::Embedded).await;
    let serving: SocketAddr = deployment.urls()[0].trim_start_matches("http://").parse().unwrap();
    let done = ask(&[nobody(), serving]);
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn silence_and_bad_answers_are_told_apart() {
    let done = ask(&[nobody()]);
    assert_eq!(done.status.code(), Some(69), "{done:?}");
    assert!(done.stderr.contains("nothing answers"), "{done:?}");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let _ = client.read(&mut [0; 512]);
        client.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    let done = ask(&[address]);
    server.join().unwrap();
    assert_eq!(done.status.code(), Some(69), "{done:?}");
    assert!(done.stderr.contains("503"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_hangs_is_not_passed_over() {
    let deployment = Deployment::start(Shape::Embedded).await;
    let serving: SocketAddr = deployment.urls()[0].trim_start_matches("http://").parse().unwrap();
    // The system takes the connection, and nobody ever reads from it.
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let done = ask(&[hanging.local_addr().unwrap(), serving]);
    assert_eq!(done.status.code(), Some(69), "{done:?}");
    assert!(done.stderr.contains("does not answer"), "{done:?}");
}

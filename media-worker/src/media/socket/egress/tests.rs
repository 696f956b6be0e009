use std::net::UdpSocket;
use std::time::Duration;

use super::*;
use crate::media::socket::bind_all;
use crate::media::transport::Local;

fn egress() -> Egress {
    Egress::new(bind_all("127.0.0.1:0".parse().unwrap(), 1).unwrap()[0].shared(), None)
}

fn receiver() -> (UdpSocket, Path) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let path = Path { remote: socket.local_addr().unwrap(), local: Local::Unknown };
    (socket, path)
}

fn lengths(socket: &UdpSocket, count: usize) -> Vec<usize> {
    let mut buffer = [0; 4096];
    (0..count).map(|_| socket.recv(&mut buffer).unwrap()).collect()
}

#[test]
fn equal_lengths_leave_as_one_message_and_arrive_as_they_were() {
    let mut egress = egress();
    let ((first, to_first), (second, to_second)) = (receiver(), receiver());
    for length in [1200, 1200, 1200, 700, 1200] {
        egress.push(to_first, &vec![1; length]);
    }
    egress.push(to_second, &[2; 1200]);
    let shapes: Vec<_> = egress.messages.iter().map(|message| (message.segment, message.count)).collect();
    assert_eq!(shapes, [(1200, 4), (1200, 1), (1200, 1)], "a shorter one ends the run");
    egress.flush();
    assert_eq!(lengths(&first, 5), [1200, 1200, 1200, 700, 1200]);
    assert_eq!(lengths(&second, 1), [1200]);
    assert_eq!(egress.sent(), Sent { packets: 6, bytes: 6700, calls: 1, drops: 0 });
}

#[test]
fn more_than_a_batch_leaves_by_itself_and_nothing_is_lost() {
    let mut egress = egress();
    let receivers: Vec<_> = (0..3).map(|_| receiver()).collect();
    for number in 0..300u32 {
        // Different destinations in turn: no runs.
        egress.push(receivers[number as usize % 3].1, &number.to_be_bytes());
    }
    egress.flush();
    for (offset, (socket, _)) in (0u32..).zip(&receivers) {
        let mut buffer = [0; 16];
        for number in (offset..300).step_by(3) {
            assert_eq!(socket.recv(&mut buffer).unwrap(), 4);
            assert_eq!(buffer[..4], number.to_be_bytes());
        }
    }
}

#[test]
fn where_a_message_cannot_be_cut_its_datagrams_go_out_singly_and_the_next_are_not_cut() {
    let mut egress = egress();
    let (socket, path) = receiver();
    // Longer than loopback's MTU of 65,536 bytes is impossible; a lower one is what a real path has, and
    // the kernel refuses to cut into segments that do not fit it. An empty destination port does the
    // same for every kind of message, so it stands for "dropped".
    let nowhere = Path { remote: ([127, 0, 0, 1], 0).into(), local: Local::Unknown };
    for _ in 0..3 {
        egress.push(nowhere, &[1; 100]);
    }
    for _ in 0..3 {
        egress.push(path, &[1; 100]);
    }
    egress.flush();
    assert_eq!(lengths(&socket, 3), [100; 3], "what is behind a refused message still leaves");
    assert_eq!((egress.sent().packets, egress.sent().drops), (3, 3));
    for _ in 0..3 {
        egress.push(nowhere, &[1; 100]);
    }
    assert!(egress.messages.iter().all(|message| message.count == 1), "it is not tried again there");
}

#[test]
fn what_was_half_written_is_taken_back() {
    let mut egress = egress();
    let (socket, path) = receiver();
    assert!(!egress.write(path, |arena| {
        arena.extend_from_slice(b"half");
        None
    }));
    egress.push(path, b"whole");
    egress.flush();
    let mut buffer = [0; 16];
    assert_eq!(socket.recv(&mut buffer).unwrap(), 5);
}

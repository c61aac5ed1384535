//! Streams that are full, unread, rotated or broken.

use super::*;
use std::io::Read;

/// A named pipe in a new directory, and its reading end.
fn fifo() -> (tempfile::TempDir, PathBuf, File) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
    nix::unistd::mkfifo(&path, mode).unwrap();
    let reader = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)
        .unwrap();
    (dir, path, reader)
}

fn drain(reader: &mut File) -> Vec<u8> {
    let mut all = Vec::new();
    // Non-blocking: ends with WouldBlock when it is empty.
    let _ = reader.read_to_end(&mut all);
    all
}

#[test]
fn an_unread_pipe_costs_a_bounded_wait_once_and_loses_whole_lines_only() {
    let (_dir, path, mut reader) = fifo();
    let mut output = Output::new(Destination::File(path));
    let line = [b"x".repeat(99), b"\n".to_vec()].concat();
    let begun = Instant::now();
    let sent = 5000;
    for _ in 0..sent {
        output.push(&line, true);
    }
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "waited once, not for every line"
    );
    let lost = output.losses().lines;
    assert!(lost > 0);

    let mut read = drain(&mut reader);
    while !output.flush() {
        read.extend(drain(&mut reader));
    }
    read.extend(drain(&mut reader));
    assert!(
        read.chunks(100).all(|chunk| chunk == line),
        "no line is torn"
    );
    assert_eq!(read.len() as u64 / 100 + lost, sent);
    output.push(b"again\n", true);
    assert!(output.flush());
    assert_eq!(drain(&mut reader), b"again\n");
}

#[test]
fn a_rotated_file_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rlb.log");
    let mut output = Output::new(Destination::File(path.clone()));
    output.push(b"one\n", true);
    assert!(output.flush());
    std::fs::rename(&path, dir.path().join("rlb.log.1")).unwrap();
    output.looked = None; // the second has passed
    output.push(b"two\n", true);
    assert!(output.flush());
    assert_eq!(
        std::fs::read(dir.path().join("rlb.log.1")).unwrap(),
        b"one\n"
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"two\n");
}

#[test]
fn a_full_disk_loses_lines_and_nothing_else() {
    let mut output = Output::new(Destination::File("/dev/full".into()));
    output.push(b"one\n", true);
    output.push(b"two\n", true);
    assert!(output.flush());
    let losses = output.losses();
    assert_eq!(losses.lines, 2);
    assert_eq!(losses.error.unwrap().raw_os_error(), Some(libc::ENOSPC));
}

#[test]
fn a_path_that_cannot_be_opened_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("missing").join("rlb.log");
    let mut output = Output::new(Destination::File(path.clone()));
    output.push(b"one\n", true);
    assert!(output.flush());
    let losses = output.losses();
    assert_eq!(
        (losses.lines, losses.error.unwrap().kind()),
        (1, io::ErrorKind::NotFound)
    );
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    output.looked = None;
    output.push(b"two\n", true);
    assert!(output.flush());
    assert_eq!(std::fs::read(&path).unwrap(), b"two\n");
}

fn fill(channel: &Channel) -> usize {
    let mut written = 0;
    loop {
        match channel.write(&[b'x'; LINE_MAX]) {
            Ok(more) => written += more,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                return written;
            }
        }
    }
}

#[test]
fn an_inherited_pipe_is_filled_without_blocking_and_left_as_it_was() {
    let (_reader, writer) = std::io::pipe().unwrap();
    let channel = inherit(writer.as_fd()).unwrap();
    assert!(matches!(channel, Channel::NonBlocking(_)));
    assert!(fill(&channel) >= LINE_MAX);
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    assert!(
        !flags.contains(rustix::fs::OFlags::NONBLOCK),
        "others write here too"
    );

    let (_reader, writer) = std::io::pipe().unwrap();
    assert!(fill(&Channel::Polled(writer.into())) >= LINE_MAX);
}

#[test]
fn an_inherited_socket_is_filled_without_blocking_and_left_as_it_was() {
    let (_reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    let channel = inherit(writer.as_fd()).unwrap();
    assert!(matches!(channel, Channel::Socket(_)));
    assert!(fill(&channel) >= LINE_MAX);
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
}

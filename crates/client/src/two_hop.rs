//! The yardstick for a mirrored write (DESIGN section 10): the same bytes over two TCP hops through three processes,
//! host to primary to mirror, and a short answer back the same way. Nothing is done with the bytes.
//!
//! The host's process starts the other two as itself with other arguments: whoever uses this calls [`child`] first
//! thing in `main`.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::bench::Figures;

const MIRROR: &str = "two-hop-mirror";
const PRIMARY: &str = "two-hop-primary";
/// Bytes of an answer: as many as a header of a link frame, roughly.
const ANSWER: usize = 48;
/// Nothing takes longer than this; then something is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// If this process is one of the two others, does its work and returns `true`; it is over then. `args` are those after
/// the program's name.
pub fn child(args: &[String]) -> std::io::Result<bool> {
    match args {
        [role, bytes] if role == MIRROR => mirror(parse(bytes)?)?,
        [role, bytes, to] if role == PRIMARY => primary(parse(bytes)?, to)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn parse(bytes: &str) -> std::io::Result<usize> {
    bytes.parse().map_err(std::io::Error::other)
}

/// Sends messages of `bytes` bytes, `depth` in flight, for `duration`. `program` is this one.
pub fn run(program: &Path, bytes: usize, depth: usize, duration: Duration) -> std::io::Result<Figures> {
    let (_mirror, to_mirror) = start(program, &[MIRROR, &bytes.to_string()])?;
    let (_primary, to_primary) = start(program, &[PRIMARY, &bytes.to_string(), &to_mirror])?;
    let mut stream = connect(&to_primary)?;
    let message = vec![0x5a; bytes];
    let mut answer = [0; ANSWER];
    let mut begun = VecDeque::new();
    let mut figures = Figures::new();
    let start = Instant::now();
    for _ in 0..depth {
        begun.push_back(Instant::now());
        stream.write_all(&message)?;
    }
    while let Some(submitted) = begun.pop_front() {
        stream.read_exact(&mut answer)?;
        let now = Instant::now();
        figures.count(bytes, now - submitted);
        if now - start < duration {
            begun.push_back(Instant::now());
            stream.write_all(&message)?;
        }
    }
    figures.elapsed = start.elapsed();
    Ok(figures)
}

/// A process that ends with us.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It ends by itself when its connection does; this is for those that never got one.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a child and reads the address that it listens at.
fn start(program: &Path, args: &[&str]) -> std::io::Result<(Process, String)> {
    let mut child = Command::new(program).args(args).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take();
    let process = Process(child);
    let mut line = String::new();
    if let Some(output) = output {
        BufReader::new(output).read_line(&mut line)?;
    }
    match line.trim() {
        "" => Err(std::io::Error::other(format!(
            "{} does not say where it listens",
            args[0]
        ))),
        address => Ok((process, address.to_string())),
    }
}

/// Listens, says where, and takes one connection.
fn accept() -> std::io::Result<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let (stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn connect(address: &str) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn mirror(bytes: usize) -> std::io::Result<()> {
    let mut stream = accept()?;
    let mut message = vec![0; bytes];
    while stream.read_exact(&mut message).is_ok() {
        stream.write_all(&message[..ANSWER.min(bytes)])?;
        if bytes < ANSWER {
            stream.write_all(&[0; ANSWER][bytes..])?;
        }
    }
    Ok(())
}

/// One thread for each direction: neither hop waits for the other.
fn primary(bytes: usize, to: &str) -> std::io::Result<()> {
    let mut mirror = connect(to)?;
    mirror.set_read_timeout(None)?;
    let (mut from_mirror, mut host) = (mirror.try_clone()?, accept()?);
    let mut to_host = host.try_clone()?;
    let answers = std::thread::spawn(move || {
        let mut answer = [0; ANSWER];
        while from_mirror.read_exact(&mut answer).is_ok() {
            if to_host.write_all(&answer).is_err() {
                return;
            }
        }
    });
    let mut message = vec![0; bytes];
    while host.read_exact(&mut message).is_ok() {
        mirror.write_all(&message)?;
    }
    mirror.shutdown(std::net::Shutdown::Both)?;
    answers
        .join()
        .map_err(|_| std::io::Error::other("the answering thread panicked"))
}

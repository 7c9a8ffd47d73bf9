//! The link alone, between this process and another that is the same program.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use twincell_core::ids::Controller;
use twincell_engine::link_alone::{Done, Party, run};

/// The arguments of the other process, beside what it is to do.
const LINK: &str = "link-alone";
const TCP: &str = "tcp-alone";
/// Bytes of a transfer.
pub const TRANSFER: usize = 128 << 10;

/// What both processes do.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Transfers that this process keeps in flight, and the other.
    pub transfers: [u16; 2],
    /// Whether data are paced.
    pub paced: bool,
    /// How often the answer to a message without data is timed.
    pub timed_every: Option<Duration>,
    /// How long.
    pub duration: Duration,
}

/// If this process is the other one, does its work and returns `true`; it is over then. `args` are those after the
/// program's name.
pub fn child(args: &[String]) -> std::io::Result<bool> {
    let wrong = |_| std::io::Error::other(format!("what is {args:?}?"));
    match args {
        [role, address, nv, transfers, paced] if role == LINK => {
            run(Party {
                controller: Controller::B,
                address: address.parse().map_err(std::io::Error::other)?,
                nv_memory: nv.into(),
                transfers: transfers.parse().map_err(wrong)?,
                paced: paced == "true",
                timed_every: None,
                // It ends with the connection.
                duration: Duration::from_secs(600),
            })?;
        }
        [role, depth] if role == TCP => swallow(depth.parse().map_err(wrong)?)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Runs the link between `program`, which is this one, and this process. NV memory goes into `dir`, on tmpfs.
pub fn link(program: &Path, dir: &Path, address: SocketAddr, shape: &Shape) -> std::io::Result<Done> {
    let nv = |name: &str| -> PathBuf { dir.join(name) };
    let mut other = Command::new(program);
    other.args([LINK, &address.to_string()]).arg(nv("B"));
    other.args([shape.transfers[1].to_string(), shape.paced.to_string()]);
    let _other = Process(other.spawn()?);
    run(Party {
        controller: Controller::A,
        address,
        nv_memory: nv("A"),
        transfers: shape.transfers[0],
        paced: shape.paced,
        timed_every: shape.timed_every,
        duration: shape.duration,
    })
}

/// Sends pieces of [`TRANSFER`] bytes over a TCP connection to another process, which does nothing with them but answer each
/// with a byte, `depth` of them in flight. As with the link, each of those in flight has memory of its own at both ends.
/// Returns bytes a second.
pub fn tcp(program: &Path, depth: usize, duration: Duration) -> std::io::Result<f64> {
    let mut other = Command::new(program);
    other.args([TCP, &depth.to_string()]).stdout(Stdio::piped());
    let mut other = other.spawn()?;
    let output = other.stdout.take();
    let _other = Process(other);
    let mut address = String::new();
    if let Some(output) = output {
        BufReader::new(output).read_line(&mut address)?;
    }
    let mut stream = TcpStream::connect(address.trim())?;
    like_the_link(&stream)?;
    let all = vec![0x5a; depth * TRANSFER];
    let mut pieces = all.chunks(TRANSFER).cycle();
    let (begun, mut in_flight, mut done) = (Instant::now(), 0, 0);
    while begun.elapsed() < duration {
        for piece in pieces.by_ref().take(depth - in_flight) {
            stream.write_all(piece)?;
            in_flight += 1;
        }
        let answered = stream.read(&mut [0; 64])?;
        if answered == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        in_flight -= answered;
        done += answered;
    }
    Ok((done * TRANSFER) as f64 / begun.elapsed().as_secs_f64())
}

/// Listens, says where, and reads one connection to its end, into as many pieces as are in flight, in turn.
fn swallow(depth: usize) -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let (mut stream, _) = listener.accept()?;
    like_the_link(&stream)?;
    let mut pieces = vec![vec![0; TRANSFER]; depth];
    let mut turn = 0;
    while stream.read_exact(&mut pieces[turn]).is_ok() {
        stream.write_all(&[1])?;
        turn = (turn + 1) % depth;
    }
    Ok(())
}

/// The link's connections wait for nothing, and do not use a congestion control that paces.
fn like_the_link(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_tcp_congestion(stream, "reno")?;
    Ok(())
}

/// A process that ends with us.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It ends by itself when its connection does; this is for one that never got any.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

//! A LUN over several paths: what a path does not do, another one does.

use std::time::{Duration, Instant};

use crate::device::{Data, Device, Request, execute};
use crate::error::Error;
use crate::url::Url;

/// How long a volume waits for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// For a connection, the login included.
    pub connect: Duration,
    /// For the answer to a request. It should be longer than the array's own limit for commands that were buffered
    /// while a controller stood still (2 s): within that limit such a controller may execute what it still has.
    pub request: Duration,
    /// For the other side to close a connection that is given up.
    pub close: Duration,
    /// Between two rounds over all paths when none of them works.
    pub pause: Duration,
    /// For a request in all, tries on every path included.
    pub give_up: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            connect: Duration::from_secs(1),
            request: Duration::from_secs(3),
            close: Duration::from_millis(500),
            pause: Duration::from_millis(10),
            give_up: Duration::from_secs(60),
        }
    }
}

/// The first and the longest time that a path is left alone after it could not be connected. Where no other path works
/// it is never left alone for longer than the first.
const REST: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(2)];

/// How a request was answered.
#[derive(Clone, Debug)]
pub struct Ack {
    /// Data of a read.
    pub data: Vec<u8>,
    /// The path that answered, by its place in the list of URLs.
    pub path: usize,
    /// When the try that succeeded was submitted.
    pub submitted: Instant,
    /// When its answer was here.
    pub acked: Instant,
    /// How many tries it took.
    pub tries: u32,
}

/// Something that happened to a path.
#[derive(Clone, Debug)]
pub struct PathEvent {
    /// When.
    pub at: Instant,
    /// The path, by its place in the list of URLs.
    pub path: usize,
    /// `None`: it is connected. Else what went wrong with it.
    pub error: Option<Error>,
}

/// Hears of what happens to the paths.
pub type Listener = Box<dyn FnMut(&PathEvent) + Send>;

struct Path {
    url: Url,
    device: Option<Box<dyn Device>>,
    /// When it could not be connected.
    failed: Option<Instant>,
    rest: Duration,
}

impl Path {
    /// Whether it was left alone for long enough.
    fn is_rested(&self, rest: Duration) -> bool {
        self.failed.is_none_or(|at| at.elapsed() >= rest)
    }
}

/// A LUN over several paths, for one user with one request at a time.
///
/// A request whose connection died, timed out, or was refused for the moment is tried again on the next path. Before
/// that the old connection is closed, in such a way that nothing of it is executed later as far as a host can bring
/// that about: the array must do the rest (DESIGN section 6, R12).
pub struct Volume {
    paths: Vec<Path>,
    current: usize,
    timing: Timing,
    listener: Option<Listener>,
}

impl Volume {
    /// Nothing is connected before it is used. Panics if there are no URLs.
    pub fn new(urls: &[Url], timing: Timing) -> Volume {
        assert!(!urls.is_empty(), "a volume needs a path");
        let path = |url: &Url| Path {
            url: url.clone(),
            device: None,
            failed: None,
            rest: REST[0],
        };
        Volume {
            paths: urls.iter().map(path).collect(),
            current: 0,
            timing,
            listener: None,
        }
    }

    /// Lets `listener` hear of what happens to the paths.
    pub fn listen(&mut self, listener: Listener) {
        self.listener = Some(listener);
    }

    /// Tries this path first from now on (modulo the number of paths).
    pub fn prefer(&mut self, path: usize) {
        self.current = path % self.paths.len();
    }

    /// Size in blocks, as the current path says.
    pub fn blocks(&mut self) -> Result<u64, Error> {
        self.keep_trying(|volume| {
            volume.connect()?;
            Ok(volume.device()?.blocks())
        })
    }

    /// Reads blocks.
    pub fn read(&mut self, start: u64, blocks: u32) -> Result<Ack, Error> {
        self.request(&Request::Read { start, blocks })
    }

    /// Writes whole blocks. The same bytes may be written several times before the acknowledgement, never after it.
    pub fn write(&mut self, start: u64, data: Data, fua: bool) -> Result<Ack, Error> {
        self.request(&Request::Write { start, data, fua })
    }

    /// Returns when everything acknowledged before is on disk.
    pub fn flush(&mut self) -> Result<Ack, Error> {
        self.request(&Request::Flush)
    }

    /// Carries out a request, on whatever path and as often as it takes, for up to `Timing::give_up`.
    pub fn request(&mut self, request: &Request) -> Result<Ack, Error> {
        let mut tries = 0;
        self.keep_trying(|volume| {
            volume.connect()?;
            tries += 1;
            let ack = volume.attempt(request.clone())?;
            Ok(Ack { tries, ..ack })
        })
    }

    /// Makes sure that the current path is connected, or makes the next one that is the current path. The error is that
    /// of the last path tried.
    pub fn connect(&mut self) -> Result<(), Error> {
        let mut last = Error::Connection("every path rests after a failure".into());
        for is_patient in [true, false] {
            for _ in 0..self.paths.len() {
                let path = &self.paths[self.current];
                if path.device.is_some() {
                    return Ok(());
                }
                if path.is_rested(if is_patient { path.rest } else { REST[0] }) {
                    match self.connect_current() {
                        Ok(()) => return Ok(()),
                        Err(e) => last = e,
                    }
                }
                self.prefer(self.current + 1);
            }
        }
        Err(last)
    }

    fn connect_current(&mut self) -> Result<(), Error> {
        let path = &mut self.paths[self.current];
        match path.url.connect(self.timing.connect) {
            Ok(mut device) => {
                device.set_timeout(self.timing.request);
                path.device = Some(device);
                path.failed = None;
                path.rest = REST[0];
                self.tell(None);
                Ok(())
            }
            Err(e) => {
                path.rest = path.failed.map_or(REST[0], |_| (path.rest * 2).min(REST[1]));
                path.failed = Some(Instant::now());
                self.tell(Some(e.clone()));
                Err(e)
            }
        }
    }

    /// One try, on the current path, which must be connected. After an error that is transient the request may or may
    /// not have been carried out, its connection is closed unless it was answered, and the next path is current.
    pub fn attempt(&mut self, request: Request) -> Result<Ack, Error> {
        let path = self.current;
        let submitted = Instant::now();
        match execute(self.device()?, request) {
            Ok(data) => Ok(Ack {
                data,
                path,
                submitted,
                acked: Instant::now(),
                tries: 1,
            }),
            Err(e) => {
                if !matches!(e, Error::Refused(_))
                    && let Some(device) = self.paths[path].device.take()
                {
                    device.close(self.timing.close);
                }
                self.tell(Some(e.clone()));
                self.prefer(path + 1);
                Err(e)
            }
        }
    }

    /// Closes all connections in good order.
    pub fn close(&mut self) {
        for path in &mut self.paths {
            if let Some(device) = path.device.take() {
                device.close(self.timing.close);
            }
        }
    }

    /// How long this volume waits for what.
    pub fn timing(&self) -> Timing {
        self.timing
    }

    fn device(&mut self) -> Result<&mut dyn Device, Error> {
        let path = &mut self.paths[self.current];
        match &mut path.device {
            Some(device) => Ok(device.as_mut()),
            None => Err(Error::Connection(format!("{} is not connected", path.url))),
        }
    }

    fn keep_trying<T>(&mut self, mut once: impl FnMut(&mut Volume) -> Result<T, Error>) -> Result<T, Error> {
        let until = Instant::now() + self.timing.give_up;
        loop {
            match once(self) {
                Err(e) if e.is_transient() && Instant::now() < until => std::thread::sleep(self.timing.pause),
                result => return result,
            }
        }
    }

    fn tell(&mut self, error: Option<Error>) {
        let event = PathEvent {
            at: Instant::now(),
            path: self.current,
            error,
        };
        if let Some(listener) = &mut self.listener {
            listener(&event);
        }
    }
}

//! An iSCSI initiator (RFC 7143): one connection per session, no authentication, no digests, error recovery level 0.

mod connection;
mod login;
mod pdu;
pub mod scsi;

use std::time::{Duration, Instant};

pub use connection::{Answer, Command, Connection, Transfer};
pub use login::SessionKind;

use crate::device::{BLOCK_BYTES, Completion, Device, Request};
use crate::error::{Error, Refusal};
use scsi::{Capacity, Inquiry, PortGroup};

/// Bytes that are asked for where an answer has no fixed length.
const ANSWER_BYTES: u32 = 16 << 10;

/// A target as discovery shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// Its portals: `HOST:PORT` and target portal group.
    pub portals: Vec<(String, u16)>,
}

/// Asks the portal `HOST:PORT` what targets there are (SendTargets=All).
pub fn discover(address: &str, timeout: Duration) -> Result<Vec<Target>, Error> {
    let mut connection = Connection::login(address, SessionKind::Discovery, timeout)?;
    let pairs = connection.text("SendTargets=All\0")?;
    connection.logout()?;
    let mut targets: Vec<Target> = Vec::new();
    for (key, value) in pairs {
        match (key.as_str(), targets.last_mut()) {
            ("TargetName", _) => targets.push(Target {
                name: value,
                portals: Vec::new(),
            }),
            ("TargetAddress", Some(target)) => {
                let (portal, group) = value.rsplit_once(',').unwrap_or((&value, "0"));
                let group = group
                    .parse()
                    .map_err(|_| Error::Protocol(format!("TargetAddress={value}")))?;
                target.portals.push((portal.to_string(), group));
            }
            _ => {}
        }
    }
    Ok(targets)
}

/// The commands that inquire; each waits for its answer, with nothing else outstanding.
impl Connection {
    /// TEST UNIT READY.
    pub fn test_unit_ready(&mut self, lun: u16) -> Result<(), Error> {
        self.execute(lun, scsi::test_unit_ready(), Transfer::None).map(|_| ())
    }

    /// INQUIRY, standard data.
    pub fn inquiry(&mut self, lun: u16) -> Result<Inquiry, Error> {
        let data = self.execute(lun, scsi::inquiry(None, 96), Transfer::In(96))?;
        Inquiry::decode(&data).ok_or_else(|| Error::Protocol("INQUIRY data are too short".into()))
    }

    /// INQUIRY, a page of vital product data, header included.
    pub fn vital_product_data(&mut self, lun: u16, page: u8) -> Result<Vec<u8>, Error> {
        self.execute(lun, scsi::inquiry(Some(page), 1024), Transfer::In(1024))
    }

    /// READ CAPACITY (16).
    pub fn read_capacity(&mut self, lun: u16) -> Result<Capacity, Error> {
        let data = self.execute(lun, scsi::read_capacity(), Transfer::In(32))?;
        Capacity::decode(&data).ok_or_else(|| Error::Protocol("READ CAPACITY data make no sense".into()))
    }

    /// REPORT LUNS.
    pub fn report_luns(&mut self) -> Result<Vec<u16>, Error> {
        let data = self.execute(0, scsi::report_luns(ANSWER_BYTES), Transfer::In(ANSWER_BYTES))?;
        scsi::decode_luns(&data).ok_or_else(|| Error::Protocol("REPORT LUNS data are not whole".into()))
    }

    /// REPORT TARGET PORT GROUPS.
    pub fn report_target_port_groups(&mut self, lun: u16) -> Result<Vec<PortGroup>, Error> {
        let cdb = scsi::report_target_port_groups(ANSWER_BYTES);
        let data = self.execute(lun, cdb, Transfer::In(ANSWER_BYTES))?;
        scsi::decode_port_groups(&data).ok_or_else(|| Error::Protocol("RTPG data are not whole".into()))
    }
}

/// A LUN of an iSCSI target, over a session of its own.
pub struct Disk {
    connection: Connection,
    lun: u16,
    blocks: u64,
}

impl Disk {
    /// Logs in at `HOST:PORT` and looks at the LUN. `timeout` is for that, and later for each request.
    pub fn connect(address: &str, target: &str, lun: u16, timeout: Duration) -> Result<Disk, Error> {
        let mut connection = Connection::login(address, SessionKind::Normal { target }, timeout)?;
        connection.test_unit_ready(lun)?;
        let capacity = connection.read_capacity(lun)?;
        if capacity.block_bytes as usize != BLOCK_BYTES {
            return Err(Error::Protocol(format!("blocks of {} bytes", capacity.block_bytes)));
        }
        Ok(Disk {
            connection,
            lun,
            blocks: capacity.blocks,
        })
    }

    /// The session, for commands that inquire while no request is outstanding.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Device for Disk {
    fn blocks(&self) -> u64 {
        self.blocks
    }

    fn set_timeout(&mut self, timeout: Duration) {
        self.connection.set_timeout(timeout);
    }

    fn submit(&mut self, request: Request) -> Result<u64, Error> {
        let (cdb, transfer) = match request {
            Request::Read { start, blocks } => (scsi::read(start, blocks), Transfer::In(blocks * BLOCK_BYTES as u32)),
            Request::Write { start, data, fua } => {
                let blocks = data.len() / BLOCK_BYTES;
                (scsi::write(start, blocks as u32, fua), Transfer::Out(data))
            }
            Request::Flush => (scsi::synchronize_cache(), Transfer::None),
        };
        self.connection.submit(Command {
            lun: self.lun,
            cdb,
            transfer,
        })
    }

    fn wait(&mut self, until: Instant) -> Result<Option<Completion>, Error> {
        let Some(answer) = self.connection.wait(until)? else {
            return Ok(None);
        };
        if answer.result.is_ok() && answer.residual != 0 {
            return Err(Error::Protocol(format!(
                "{} bytes of a request were left out",
                answer.residual
            )));
        }
        Ok(Some(Completion {
            tag: answer.tag,
            result: answer.result,
        }))
    }

    fn close(self: Box<Self>, grace: Duration) {
        self.connection.close(grace);
    }
}

/// What a status and its sense data mean; `None` for GOOD.
fn refusal(status: u8, sense: &[u8]) -> Option<Refusal> {
    match status {
        0 => None,
        2 => Some(Refusal::Sense(scsi::Sense::decode(sense))),
        status => Some(Refusal::Status(status)),
    }
}

//! The login phase (RFC 7143 6): without authentication, in two stages.

use std::hash::{BuildHasher, Hasher};
use std::time::Instant;

use super::pdu::{self, DATA_MAX, Header, request, response};
use crate::bytes::{put, u32_at};
use crate::error::Error;
use crate::transport::Transport;

/// The name of this initiator.
pub const INITIATOR_NAME: &str = "iqn.2026-11.io.twincell:client";

const SECURITY: u8 = 0;
const OPERATIONAL: u8 = 1;
const FULL_FEATURE: u8 = 3;
const TRANSIT: u8 = 0x80;
const CONTINUE: u8 = 0x40;

/// What the session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionKind<'a> {
    /// To ask for targets.
    Discovery,
    /// To use this target.
    Normal {
        /// Its name.
        target: &'a str,
    },
}

/// What was agreed on, and where the numbers stand.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The longest data segment that the target takes, in bytes.
    pub data_max: u32,
    /// The most data that go with a command, in bytes.
    pub first_burst: u32,
    /// Whether data go with a command.
    pub immediate_data: bool,
    /// The next CmdSN.
    pub command_sn: u32,
    /// The next StatSN.
    pub status_sn: u32,
    /// The last CmdSN that the target takes.
    pub max_command_sn: u32,
}

/// Logs in on a fresh connection.
pub fn login(transport: &mut Transport, kind: SessionKind, until: Instant) -> Result<Terms, Error> {
    let mut phase = Phase {
        transport,
        session: session_id(),
        // What holds where the target is silent (RFC 7143 13).
        terms: Terms {
            data_max: 8192,
            first_burst: 65536,
            immediate_data: true,
            command_sn: 1,
            status_sn: 0,
            max_command_sn: 1,
        },
        until,
    };
    let (kind, target) = match kind {
        SessionKind::Discovery => ("Discovery", String::new()),
        SessionKind::Normal { target } => ("Normal", format!("TargetName={target}\0")),
    };
    let security = format!("InitiatorName={INITIATOR_NAME}\0SessionType={kind}\0{target}AuthMethod=None\0");
    phase.stage(SECURITY, OPERATIONAL, &security)?;
    let operational = format!(
        "HeaderDigest=None\0DataDigest=None\0ErrorRecoveryLevel=0\0InitialR2T=Yes\0ImmediateData=Yes\0\
         MaxRecvDataSegmentLength={DATA_MAX}\0FirstBurstLength={DATA_MAX}\0MaxBurstLength=16776192\0\
         MaxConnections=1\0MaxOutstandingR2T=1\0DataPDUInOrder=Yes\0DataSequenceInOrder=Yes\0\
         DefaultTime2Wait=0\0DefaultTime2Retain=0\0"
    );
    phase.stage(OPERATIONAL, FULL_FEATURE, &operational)?;
    Ok(phase.terms)
}

struct Phase<'a> {
    transport: &'a mut Transport,
    session: [u8; 6],
    terms: Terms,
    until: Instant,
}

impl Phase<'_> {
    /// One stage: our keys, then empty requests until the target agrees to go on.
    fn stage(&mut self, stage: u8, next: u8, keys: &str) -> Result<(), Error> {
        let mut keys = keys;
        for _ in 0..16 {
            let mut header = pdu::header(request::LOGIN | request::IMMEDIATE, TRANSIT | stage << 2 | next, 0);
            put(&mut header, 8, &self.session);
            put(&mut header, 24, &self.terms.command_sn.to_be_bytes());
            put(&mut header, 28, &self.terms.status_sn.to_be_bytes());
            pdu::send(self.transport, header, keys.as_bytes())?;
            keys = "";
            let (header, text) = self.answer()?;
            self.on_keys(&text)?;
            if header[1] & TRANSIT != 0 && header[1] & CONTINUE == 0 {
                return Ok(());
            }
        }
        Err(Error::Protocol("the login leads nowhere".into()))
    }

    fn answer(&mut self) -> Result<(Header, Vec<u8>), Error> {
        loop {
            if let Some((header, data, end)) = pdu::peek(self.transport.received())? {
                let text = self.transport.received()[data].to_vec();
                self.transport.consume(end);
                if header[0] != response::LOGIN {
                    return Err(Error::Protocol(format!("PDU {:#04x} in the login phase", header[0])));
                }
                if header[36] != 0 {
                    let class = u16::from(header[36]) << 8 | u16::from(header[37]);
                    return Err(Error::Connection(format!("login refused, status {class:#06x}")));
                }
                self.terms.status_sn = u32_at(&header, 24).wrapping_add(1);
                self.terms.max_command_sn = u32_at(&header, 32);
                return Ok((header, text));
            }
            if !self.transport.exchange(self.until)? {
                return Err(Error::TimedOut("the iSCSI login".into()));
            }
        }
    }

    fn on_keys(&mut self, text: &[u8]) -> Result<(), Error> {
        for (key, value) in pairs(text)? {
            let number = || {
                value
                    .parse::<u32>()
                    .map_err(|_| Error::Protocol(format!("{key}={value}")))
            };
            let expected = match key.as_str() {
                "MaxRecvDataSegmentLength" => {
                    self.terms.data_max = number()?.max(512);
                    continue;
                }
                "FirstBurstLength" => {
                    self.terms.first_burst = number()?;
                    continue;
                }
                "ImmediateData" => {
                    self.terms.immediate_data = value == "Yes";
                    continue;
                }
                "HeaderDigest" | "DataDigest" | "AuthMethod" => "None",
                "InitialR2T" | "DataPDUInOrder" | "DataSequenceInOrder" => "Yes",
                "ErrorRecoveryLevel" => "0",
                _ => continue,
            };
            if value != expected {
                return Err(Error::Protocol(format!("the target insists on {key}={value}")));
            }
        }
        Ok(())
    }
}

/// The `key=value` pairs of a text.
pub fn pairs(text: &[u8]) -> Result<Vec<(String, String)>, Error> {
    let bad = || Error::Protocol(format!("text {:?}", String::from_utf8_lossy(text)));
    let whole = std::str::from_utf8(text).map_err(|_| bad())?;
    let pair = |part: &str| part.split_once('=').map(|(k, v)| (k.to_string(), v.to_string()));
    let parts = whole.split('\0').filter(|part| !part.is_empty());
    parts.map(|part| pair(part).ok_or_else(bad)).collect()
}

/// A session id of random form: one used twice would end the older session.
fn session_id() -> [u8; 6] {
    let random = std::hash::RandomState::new().build_hasher().finish().to_be_bytes();
    [0x80, random[0], random[1], random[2], random[3], random[4]]
}

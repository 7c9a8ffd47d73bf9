//! The login phase (RFC 7143, sections 6 and 11.12, 11.13)

use super::keys::{MAX_RECV_DATA_SEGMENT_LENGTH, Negotiation, Parameters, pairs, put};
use super::pdu::{CONTINUE, FINAL, Header};
use crate::scsi::identity::target_port_group;
use crate::session::View;

/// Why a login fails: status class in the upper byte, detail in the lower (11.13.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Initiator error: something is wrong that has no detail of its own.
    InitiatorError = 0x0200,
    /// The methods that the initiator offers are not ours.
    Authentication = 0x0201,
    /// There is no such target here.
    NotFound = 0x0203,
    /// Only version 0 exists.
    UnsupportedVersion = 0x0205,
    /// A name is missing.
    MissingParameter = 0x0207,
    /// Neither normal nor discovery.
    SessionTypeNotSupported = 0x0209,
    /// A connection cannot be added to a session.
    SessionDoesNotExist = 0x020a,
    /// Not a login request, or not one of this stage.
    InvalidDuringLogin = 0x020b,
}

/// What the target awaits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    /// The first request, which names initiator and target.
    First,
    /// A request of the security negotiation stage.
    Security,
    /// A request of the operational negotiation stage.
    Operational,
}

const SECURITY: u8 = 0;
const OPERATIONAL: u8 = 1;
const FULL_FEATURE: u8 = 3;

/// Most bytes of text that one side may send in pieces, with the C bit.
const TEXT_BYTES_MAX: usize = 65_536;
/// Longest iSCSI name (4.2.7.1).
const NAME_BYTES_MAX: usize = 223;
/// What an initiator takes during login (13.12).
const REPLY_BYTES_MAX: usize = 8192;

/// The answer to a login request that is right.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    /// T bit and stages.
    pub flags: u8,
    /// Keys.
    pub text: Vec<u8>,
    /// The full feature phase begins after this.
    pub is_last: bool,
}

/// The login of one connection.
#[derive(Clone, Debug)]
pub struct Login {
    awaits: Awaits,
    /// ISID, as the initiator gives it.
    pub isid: [u8; 6],
    connection: u16,
    task_tag: u32,
    text: Vec<u8>,
    negotiation: Negotiation,
    has_declared: bool,
    /// The initiator's name; empty until it is known.
    pub initiator_name: String,
    /// Discovery, not normal.
    pub is_discovery: bool,
}

impl Login {
    /// At the beginning of a connection.
    pub fn new() -> Login {
        Login {
            awaits: Awaits::First,
            isid: [0; 6],
            connection: 0,
            task_tag: 0,
            text: Vec::new(),
            negotiation: Negotiation::default(),
            has_declared: false,
            initiator_name: String::new(),
            is_discovery: false,
        }
    }

    /// What was negotiated.
    pub fn parameters(&self) -> &Parameters {
        &self.negotiation.parameters
    }

    /// Answers a login request.
    ///
    /// # Errors
    /// The login fails; the connection ends after the response that says why.
    pub fn request(&mut self, header: &Header, text: &[u8], view: &View) -> Result<Reply, Failure> {
        let stage = self.check(header)?;
        if self.text.len() + text.len() > TEXT_BYTES_MAX {
            return Err(Failure::InitiatorError);
        }
        self.text.extend_from_slice(text);
        let transit = header.flags() & FINAL != 0;
        if header.flags() & CONTINUE != 0 {
            return match transit {
                true => Err(Failure::InitiatorError),
                false => Ok(Reply {
                    flags: stage << 2,
                    text: Vec::new(),
                    is_last: false,
                }),
            };
        }
        let text = self.negotiate(stage, view)?;
        let next = if transit {
            Some(next_stage(stage, header.flags() & 3)?)
        } else {
            None
        };
        self.awaits = match next.unwrap_or(stage) {
            SECURITY => Awaits::Security,
            _ => Awaits::Operational,
        };
        Ok(Reply {
            flags: stage << 2 | next.map_or(0, |next| FINAL | next),
            text,
            is_last: next == Some(FULL_FEATURE),
        })
    }

    /// Checks what the header says; the stage of the request.
    fn check(&mut self, header: &Header) -> Result<u8, Failure> {
        let [_, least] = header.array::<2>(2);
        if least > 0 {
            return Err(Failure::UnsupportedVersion);
        }
        let [high, low] = header.array::<2>(14);
        if [high, low] != [0, 0] {
            return Err(Failure::SessionDoesNotExist);
        }
        let names = (
            header.array::<6>(8),
            u16::from_be_bytes(header.array(20)),
            header.task_tag(),
        );
        let stage = header.flags() >> 2 & 3;
        match self.awaits {
            Awaits::First if stage > OPERATIONAL => return Err(Failure::InvalidDuringLogin),
            // More of the first text may come.
            Awaits::First if self.text.is_empty() => (self.isid, self.connection, self.task_tag) = names,
            Awaits::First => {}
            Awaits::Security if stage != SECURITY => return Err(Failure::InvalidDuringLogin),
            Awaits::Operational if stage != OPERATIONAL => return Err(Failure::InvalidDuringLogin),
            Awaits::Security | Awaits::Operational => {}
        }
        if names != (self.isid, self.connection, self.task_tag) {
            return Err(Failure::InitiatorError);
        }
        Ok(stage)
    }

    /// Takes the keys of a text that is complete; the keys to answer.
    fn negotiate(&mut self, stage: u8, view: &View) -> Result<Vec<u8>, Failure> {
        let text = std::mem::take(&mut self.text);
        let pairs = pairs(&text).ok_or(Failure::InitiatorError)?;
        let mut reply = Vec::new();
        if self.awaits == Awaits::First {
            self.introduce(&pairs, view)?;
            if !self.is_discovery {
                put(
                    &mut reply,
                    "TargetPortalGroupTag",
                    &target_port_group(view.controller).to_string(),
                );
            }
        }
        for (key, value) in pairs {
            self.key(key, value, &mut reply)?;
        }
        if stage == OPERATIONAL && !self.has_declared {
            self.has_declared = true;
            put(
                &mut reply,
                "MaxRecvDataSegmentLength",
                &MAX_RECV_DATA_SEGMENT_LENGTH.to_string(),
            );
        }
        if reply.len() > REPLY_BYTES_MAX {
            return Err(Failure::InitiatorError);
        }
        Ok(reply)
    }

    /// Who comes, and what for.
    fn introduce(&mut self, pairs: &[(&str, &str)], view: &View) -> Result<(), Failure> {
        let value_of = |key| pairs.iter().find(|(k, _)| *k == key).map(|(_, value)| *value);
        let name = value_of("InitiatorName").ok_or(Failure::MissingParameter)?;
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(Failure::InitiatorError);
        }
        self.initiator_name = name.to_owned();
        self.is_discovery = match value_of("SessionType") {
            None | Some("Normal") => false,
            Some("Discovery") => true,
            Some(_) => return Err(Failure::SessionTypeNotSupported),
        };
        match value_of("TargetName") {
            None if self.is_discovery => Ok(()),
            None => Err(Failure::MissingParameter),
            Some(name) if name.eq_ignore_ascii_case(&view.target_name) => Ok(()),
            Some(_) => Err(Failure::NotFound),
        }
    }

    fn key(&mut self, key: &str, value: &str, reply: &mut Vec<u8>) -> Result<(), Failure> {
        match key {
            "InitiatorName" | "InitiatorAlias" | "SessionType" | "TargetName" => Ok(()),
            "MaxRecvDataSegmentLength" => {
                let declared = self.negotiation.parameters.declare_segment_length(value);
                declared.ok_or(Failure::InitiatorError)
            }
            "AuthMethod" if !value.split(',').any(|method| method == "None") => Err(Failure::Authentication),
            _ => self
                .negotiation
                .offer(key, value, reply)
                .map_err(|_| Failure::InitiatorError),
        }
    }
}

/// The stage that the initiator wants to go to: a later one, and 2 is none (11.12.3).
fn next_stage(stage: u8, next: u8) -> Result<u8, Failure> {
    match next {
        OPERATIONAL | FULL_FEATURE if next > stage => Ok(next),
        _ => Err(Failure::InitiatorError),
    }
}

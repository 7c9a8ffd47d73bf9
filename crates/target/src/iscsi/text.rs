//! Text requests in the full feature phase (RFC 7143, 11.10, 11.11 and appendix C): discovery, and the one
//! parameter that may still be declared

use super::keys::{self, pairs, put};
use super::pdu::{CONTINUE, FINAL, Header, NO_TAG, Reason, opcode};
use super::session::IscsiSession;
use crate::scsi::identity::target_port_group;
use crate::session::{Outside, View};
use twincell_core::ids::Controller;

/// Most bytes of a request that comes in pieces.
const REQUEST_BYTES_MAX: usize = 65_536;
/// The target transfer tag of a text exchange: there is one at a time.
const TRANSFER_TAG: u32 = 1;

/// A text exchange that takes more than one PDU each way.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    is_open: bool,
    request: Vec<u8>,
    reply: Vec<u8>,
    /// Bytes of the reply that were sent.
    sent: usize,
}

impl Exchange {
    /// A piece of the reply was sent that is not the last: the initiator asks for the next one, and for nothing else
    /// (6.2).
    fn is_replying(&self) -> bool {
        self.sent > 0
    }
}

impl IscsiSession {
    pub(super) fn text(&mut self, header: &Header, segment: &[u8], outside: &mut dyn Outside) {
        if !self.accept(header) {
            return;
        }
        let goes_on = header.transfer_tag() != NO_TAG;
        if !goes_on {
            self.exchange = Exchange::default();
        }
        let is_known = !goes_on || self.exchange.is_open && header.transfer_tag() == TRANSFER_TAG;
        let continues = header.flags() & CONTINUE != 0;
        let is_too_long = self.exchange.request.len() + segment.len() > REQUEST_BYTES_MAX;
        let is_untimely = self.exchange.is_replying() && (continues || !segment.is_empty());
        if !is_known || is_too_long || is_untimely || continues && header.is_final() {
            self.exchange = Exchange::default();
            return self.reject(Reason::Protocol);
        }
        self.exchange.is_open = true;
        self.exchange.request.extend_from_slice(segment);
        if continues {
            return self.text_response(header, 0, &[]);
        }
        let request = std::mem::take(&mut self.exchange.request);
        let Some(pairs) = pairs(&request).filter(|pairs| asks_once(pairs)) else {
            self.exchange = Exchange::default();
            return self.reject(Reason::InvalidField);
        };
        for (key, value) in pairs {
            self.text_key(key, value, outside.view());
        }
        self.send_reply(header);
    }

    fn text_key(&mut self, key: &str, value: &str, view: &View) {
        let reply = &mut self.exchange.reply;
        match key {
            "SendTargets" => match value {
                "All" if self.is_discovery => targets(view, reply),
                "" if !self.is_discovery => targets(view, reply),
                "All" | "" => put(reply, key, "Reject"),
                name if name.eq_ignore_ascii_case(&view.target_name) => targets(view, reply),
                _ => {}
            },
            "MaxRecvDataSegmentLength" => {
                if self.parameters.declare_segment_length(value).is_none() {
                    put(reply, key, "Reject");
                }
            }
            _ if keys::is_negotiated(key) => put(reply, key, "Reject"),
            _ => put(reply, key, "NotUnderstood"),
        }
    }

    /// Sends the reply, or as much of it as the initiator takes at once.
    fn send_reply(&mut self, request: &Header) {
        let most = self.parameters.max_recv_data_segment_length as usize;
        let reply = std::mem::take(&mut self.exchange.reply);
        let rest = &reply[std::mem::take(&mut self.exchange.sent)..];
        if rest.len() > most {
            self.text_response(request, CONTINUE, &rest[..most]);
            self.exchange.sent = reply.len() - rest.len() + most;
            self.exchange.reply = reply;
            return;
        }
        self.exchange.is_open = !request.is_final();
        self.text_response(request, request.flags() & FINAL, rest);
    }

    fn text_response(&mut self, request: &Header, flags: u8, text: &[u8]) {
        let mut header = self.status_header(opcode::TEXT_RESPONSE, flags, request.task_tag());
        header.0[8..16].copy_from_slice(&request.lun());
        header.set32(20, if flags & FINAL != 0 { NO_TAG } else { TRANSFER_TAG });
        self.send(header, text);
    }
}

/// Whether no more than one list of targets is asked for: it is much longer than the request.
fn asks_once(pairs: &[(&str, &str)]) -> bool {
    pairs.iter().filter(|(key, _)| *key == "SendTargets").count() <= 1
}

/// Appends the target and the portals of both controllers.
fn targets(view: &View, reply: &mut Vec<u8>) {
    put(reply, "TargetName", &view.target_name);
    for controller in Controller::BOTH {
        let group = target_port_group(controller);
        for portal in &view.portals[controller.index()] {
            put(reply, "TargetAddress", &format!("{portal},{group}"));
        }
    }
}

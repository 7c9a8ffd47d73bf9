//! Asymmetric logical unit access (SPC-4, 5.15 and 6.36). Each controller is one target port group of one port.

use super::identity::{relative_target_port, target_port_group};
use crate::session::View;
use twincell_core::ids::Controller;
use twincell_core::manage::LunView;

/// How long a change of state may take, in seconds.
const TRANSITION_SECONDS: u8 = 60;

/// Asymmetric access state of a target port group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessState {
    /// The owner.
    Optimized = 0x0,
    /// The other controller, which forwards.
    NonOptimized = 0x1,
    /// The other controller, while it is out.
    Unavailable = 0x3,
    /// Between owners.
    Transitioning = 0xf,
}

/// The state of `lun` through the ports of `controller`.
pub fn access_state(controller: Controller, lun: &LunView, view: &View) -> AccessState {
    if controller != view.controller && !view.partner_in {
        AccessState::Unavailable
    } else if lun.moving {
        AccessState::Transitioning
    } else if controller == lun.owner {
        AccessState::Optimized
    } else {
        AccessState::NonOptimized
    }
}

/// Appends the REPORT TARGET PORT GROUPS data in format 0 (length only) or 1 (extended header).
pub fn report_target_port_groups(format: u8, lun: &LunView, view: &View, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    if format == 1 {
        out.extend_from_slice(&[0x10, TRANSITION_SECONDS, 0, 0]);
    }
    for controller in Controller::BOTH {
        let group = target_port_group(controller).to_be_bytes();
        let port = relative_target_port(controller).to_be_bytes();
        let state = access_state(controller, lun, view) as u8;
        out.extend_from_slice(&[state, 0x8b, group[0], group[1]]); // T_SUP, U_SUP, AN_SUP, AO_SUP
        out.extend_from_slice(&[0, 0x02, 0, 1]); // changed implicitly; one port
        out.extend_from_slice(&[0, 0, port[0], port[1]]);
    }
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

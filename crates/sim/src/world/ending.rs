//! The end of a run: everything is healed, must become well, is read back, and must be quiet.

use super::queue::Happening;
use super::wire::Wire;
use super::{LIVENESS, MS, World};
use crate::hosts::{Command, HOT};
use crate::process::Process;
use twincell_core::cell::record::Mode;
use twincell_core::controller::Role;
use twincell_core::host::HostOp;
use twincell_core::ids::Controller;
use twincell_core::nv::resolve::resolve;

impl World {
    pub(super) fn heal_and_drain(&mut self) -> Result<(), String> {
        self.log(|| "--- healing".into());
        self.healing = true;
        self.wire = Wire {
            connection: self.wire.connection,
            open: self.wire.open,
            opening: self.wire.opening,
            last: self.wire.last,
            ..Wire::default()
        };
        self.shelf.failing = None;
        self.shelf.failing_writes = None;
        self.ends_after_start = [None; 2];
        self.ends_after_serving = [None; 2];
        self.partner_follows = [None; 2];
        for controller in Controller::BOTH {
            self.stopped[controller.index()] = false;
            if let Some(process) = &mut self.processes[controller.index()] {
                process.crash_after = None;
                process.crash_before = None;
            } else {
                self.after(MS, Happening::Start(controller));
            }
        }
        self.maybe_open_link();
        let limit = self.now + LIVENESS;
        while self.in_flight > 0 || !self.is_well() {
            if !self.advance()? || self.now > limit {
                return Err(format!(
                    "not well {} s after healing: {}",
                    LIVENESS / MS / 1000,
                    self.state()
                ));
            }
        }
        Ok(())
    }

    pub(super) fn is_well(&self) -> bool {
        let well = |p: &Option<Process>| {
            let view = p.as_ref().filter(|p| p.serves).map(|p| p.core.cell_view());
            view.is_some_and(|v| v.role == Role::Serving && v.record.is_some_and(|r| r.mode == Mode::Both))
        };
        self.processes.iter().all(well)
    }

    pub(super) fn state(&self) -> String {
        let view = |p: &Option<Process>| match p {
            Some(p) => {
                let v = p.core.cell_view();
                let mode = v.record.map(|r| (r.epoch, r.mode));
                format!(
                    "process {} {:?} {mode:?} linked {} joining {} dirty {} ries {} serves {} locks {} fence {} commands {}",
                    p.id,
                    v.role,
                    v.linked,
                    v.joining,
                    v.dirty_buffers,
                    v.open_ries,
                    p.serves,
                    p.wants_locks,
                    p.wants_fence,
                    p.commands.len()
                ) + "\n    "
                    + &p.core.commands_in_words().join("\n    ")
            }
            None => "down".into(),
        };
        let waiting: Vec<_> = self.commands.iter().filter(|c| !c.done).take(4).collect();
        format!(
            "\n  A: {}\n  B: {}\n  locks {:?} in flight {:?}\n  waiting: {waiting:?}",
            view(&self.processes[0]),
            view(&self.processes[1]),
            self.shelf.locks,
            self.shelf.in_flight
        )
    }

    /// Reads everything back through both controllers.
    pub(super) fn scan(&mut self) -> Result<(), String> {
        for path in 0..2 {
            for lun in 0..self.luns.len() {
                if self.luns[lun].doomed {
                    continue;
                }
                let mut start = HOT.start;
                while start < HOT.end {
                    let blocks = (HOT.end - start).min(200) as u32;
                    let begun = self.number;
                    let command = self.commands.len();
                    self.commands.push(Command {
                        host: 0,
                        lun,
                        op: HostOp::Read,
                        start,
                        blocks,
                        tag: 0,
                        begun,
                        attempt: 0,
                        data: vec![0; blocks as usize],
                        once: false,
                        extra: false,
                        in_hand: None,
                        status: None,
                        done: false,
                    });
                    self.in_flight += 1;
                    self.try_on(command, path);
                    start += u64::from(blocks);
                }
            }
            let limit = self.now + LIVENESS;
            while self.in_flight > 0 {
                if !self.advance()? || self.now > limit {
                    return Err(format!("the scan does not end: {}", self.state()));
                }
            }
        }
        Ok(())
    }

    /// When all is quiet, both images hold the same, and nothing is held by nobody.
    pub(super) fn check_quiet(&mut self) -> Result<(), String> {
        let limit = self.now + LIVENESS;
        let quiet = |w: &World| {
            let clean = |p: &Option<Process>| p.as_ref().is_some_and(|p| p.core.cell_view().dirty_buffers == 0);
            w.processes.iter().all(clean)
        };
        while !quiet(self) {
            if !self.advance()? || self.now > limit {
                return Err(format!("never quiet: {}", self.state()));
            }
        }
        let settle = self.now + 500 * MS;
        while self.now < settle && self.advance()? {}
        for controller in Controller::BOTH {
            let image = &self.nv[controller.index()].as_ref().ok_or("no NV memory")?.image;
            let valid = resolve(image, self.geometry).map_err(|_| "a damaged image")?;
            if !valid.is_empty() {
                return Err(format!("{controller} still holds {valid:?} though all is on disk"));
            }
        }
        Ok(())
    }

    /// For every block there was one order of all that was done.
    pub(super) fn check_histories(&self) -> Result<(), String> {
        for (lun, history) in self.histories.iter().enumerate() {
            history
                .check_linearizable()
                .map_err(|what| format!("LUN {lun}: {what}"))?;
        }
        Ok(())
    }
}

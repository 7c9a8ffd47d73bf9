//! Data that wait for a disk that is out of order while the partner joins (R9). What drains to the disks is never copied; these
//! cannot drain. So they are written once more, from buffer to buffer, and the partner mirrors that as any write.

use crate::cache::Granule;
use crate::cell::Joiner;
use crate::controller::Core;
use crate::host::{HostOp, Status};
use crate::htb::{Htb, Origin, Portion};
use crate::ids::{BUFFER_BLOCKS, BlockCount, BufferIndex};
use crate::mark::mark;
use crate::mutant;
use crate::write::Lacks;

/// Most that are on their way at once, and that begin in one step.
pub(crate) const AT_ONCE: usize = 8;
/// Most buffers that one search looks at. What was carried comes last among those that wait for their disks, so what was not is
/// found among the first.
const LOOK_AT: usize = 64;

impl Core {
    /// Begins to carry what has to be, as far as there is room, but no more than `most`, which it lowers.
    pub(crate) fn carry_to_joiner(&mut self, most: &mut usize) {
        let joins = matches!(self.joiner, Joiner::Attached { heard: true, .. });
        if !joins || self.cache.untwinned() == 0 || !self.disks.any_in_trouble() {
            return;
        }
        while *most > 0 && self.carried().count() < AT_ONCE && self.htbs.free() > self.partners_transfers() {
            let Some(buffer) = self.stuck_buffer() else { return };
            *most -= 1;
            self.carry(buffer);
        }
    }

    fn carried(&self) -> impl Iterator<Item = &Htb> {
        self.order.iter().map(|h| self.htb(*h)).filter(|htb| htb.carries)
    }

    /// Data that the joiner lacks and that cannot drain, and that are not carried yet.
    fn stuck_buffer(&self) -> Option<BufferIndex> {
        self.cache.put_aside_first(LOOK_AT).find(|buffer| {
            let held = self.cache.get(*buffer);
            if held.twinned || !self.has_room_for_carried(*buffer) {
                return false;
            }
            let granule = held.granule;
            let places = self.places(granule.ncae, granule.start().0);
            let dead = places.iter().any(|(d, _)| self.disks.is_out_of_order(*d, self.now));
            let stuck = dead || self.cache.is_in_vain(*buffer);
            let of_this = |htb: &Htb| (htb.ncae, htb.start) == (granule.ncae, granule.start());
            stuck && self.lun(granule.ncae).is_some() && !self.carried().any(of_this)
        })
    }

    /// Whether one more buffer can be given to what cannot drain. What is in the own pair already gives its own back; what is
    /// in the partner's has to leave others what they need, or no LUN could be written until the disk is back.
    pub(crate) fn has_room_for_carried(&self, buffer: BufferIndex) -> bool {
        let is_own = self.geometry().pair_of(buffer) == Some(self.own()) || mutant::is("carried-data-fill-the-memory");
        let kept = if is_own { 0 } else { self.kept_for_other_disks() };
        self.cache.free() > kept
    }

    /// A write that no host waits for. It goes before all that wait for their turn, for some of them wait for these data.
    fn carry(&mut self, buffer: BufferIndex) {
        mark!("data that cannot drain are carried to a joiner");
        let Granule { ncae, .. } = self.cache.get(buffer).granule;
        let start = self.cache.get(buffer).granule.start();
        let lun = self.lun(ncae).expect("stuck_buffer looked");
        let (noid, left) = (lun.noid, lun.blocks - start.0);
        let op = HostOp::Write { fua: false };
        // The last granule may end beyond the LUN.
        let blocks = BlockCount(left.min(u64::from(BUFFER_BLOCKS)) as u32);
        let (h, _) = self.htbs.take(Htb {
            carries: true,
            ..Htb::new(Origin::Nobody, ncae, noid, op, start, blocks)
        });
        self.order.push_front(h);
        self.turn_may_have_come = true;
    }

    /// From the old buffer to a new one, as long as the partner joins and lacks it.
    pub(crate) fn admit_carried(&mut self, h: u32) -> Lacks {
        let granule = Granule::of(self.htb(h).ncae, self.htb(h).start.0);
        let joins = matches!(self.joiner, Joiner::Attached { .. });
        let current = self.cache.current(granule);
        let lacks = |b: &BufferIndex| joins && !self.cache.get(*b).twinned && self.has_room_for_carried(*b);
        let Some(old) = current.filter(lacks) else {
            self.finish(h, Status::Good);
            return Lacks::Nothing;
        };
        if !self.may_stage() || !self.link.has_room() || self.free_ries.is_empty() {
            return Lacks::Leave;
        }
        let htb = self.htb_mut(h);
        htb.locked = true;
        htb.portion = Portion {
            start: htb.start.0,
            blocks: BUFFER_BLOCKS,
            old: [Some(old)].into_iter().collect(),
            mirrored: true,
            express: true,
            ..Portion::default()
        };
        self.acquire(h);
        self.stage_nv(h);
        let p = self.htb(h).portion;
        // No block is new: all that is valid comes from the old buffer.
        self.merge_and_seal(p.start, 0, &p.new, &p.old);
        self.commit_primary(h);
        Lacks::Nothing
    }
}

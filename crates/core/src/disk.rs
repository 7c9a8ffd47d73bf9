//! How each disk behaves, as this controller sees it: whether it answers, since when it does not do what it should, and
//! when it is tried again.

use crate::ids::{DiskIndex, Nanos, Time};
use crate::mutant;

/// How long a disk is left alone after an error.
const AFTER_ERROR: Nanos = Nanos::from_millis(300);
/// A disk that has failed for this long is out of order: another copy has to do, and where there is none hosts get errors.
const GIVE_UP_AFTER: Nanos = Nanos::from_millis(900);
/// The same of one that has not answered since something was overdue: longer, for it may only be slow.
const GIVE_UP_STALLED_AFTER: Nanos = Nanos::from_millis(3000);
/// A disk that is in trouble again so soon after it was has been so all the time: it is too slow, or some of it is broken, and what
/// it does well meanwhile says nothing of that.
const AGAIN_WITHIN: Nanos = Nanos::from_millis(1500);
/// Where nothing at all has ended in time for so long nothing is to be expected of it, though it ends what it is asked for late.
const USELESS_AFTER: Nanos = Nanos::from_millis(6_000);
/// A disk that has ended a write or a flush late, and well, is known to be slow for so long: what it is asked for then is not given up
/// as soon as it is overdue.
const SLOW_FOR: Nanos = Nanos::from_millis(10_000);
/// How often it must have failed meanwhile. One error and another are only that.
const AGAIN_AND_AGAIN: u32 = 4;

/// What a disk was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Duty {
    /// To take data.
    Write,
    /// To make durable what it took.
    Flush,
}

/// One disk. It is in trouble from the first error, or the first I/O that is overdue, until it has done again what it
/// failed at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Disk {
    /// I/Os that are overdue and have not ended.
    overdue: u16,
    /// Until then it is known to be slow.
    slow_until: Time,
    /// The last write failed, and the last flush.
    fails: [bool; 2],
    /// Since when it has been in trouble, and has ended nothing late.
    since: Option<Time>,
    /// Since when it has been so again and again.
    began: Time,
    /// Since when nothing has ended in time: not before it began.
    late_since: Time,
    /// When it was so last, if it is not now.
    was_until: Option<Time>,
    /// How often it has failed since it began, after it was left alone.
    failures: u32,
    /// It is left alone until then.
    not_before: Time,
    /// Reads in flight.
    reads: u16,
    /// When it was to be given up last, and perhaps could not be.
    asked_at: Time,
}

impl Disk {
    fn is_in_trouble(&self) -> bool {
        self.overdue > 0 || self.fails != [false; 2]
    }

    /// Whether it has been in trouble since then for too long to be only disturbed. One that answers with errors has been tried
    /// again meanwhile, and has failed again: nothing is known of one that nobody needs, or that waits for another.
    fn has_failed_since(&self, since: Time, now: Time) -> bool {
        if self.overdue > 0 {
            now.since(since) >= GIVE_UP_STALLED_AFTER
        } else {
            // It is left alone for a while from its last error on.
            self.not_before.since(since) >= Nanos(GIVE_UP_AFTER.0 + AFTER_ERROR.0)
        }
    }

    /// Whether it has done nothing for so long that it is more than slow.
    fn hangs(&self, now: Time) -> bool {
        self.since.is_some_and(|since| self.has_failed_since(since, now))
    }

    /// Whether nothing is to be expected of it.
    fn is_dead(&self, now: Time) -> bool {
        let is_useless = self.overdue > 0 && now.since(self.late_since) >= USELESS_AFTER;
        self.hangs(now) || is_useless
    }

    /// Whether another copy does better: it is dead, or has been in trouble again and again.
    fn is_given_up(&self, now: Time) -> bool {
        let often = self.since.is_some() && (self.overdue > 0 || self.failures >= AGAIN_AND_AGAIN);
        self.is_dead(now) || often && self.has_failed_since(self.began, now)
    }

    /// It comes into trouble, or into trouble again.
    fn begin(&mut self, now: Time) {
        let again = self.was_until.is_some_and(|at| now.since(at) < AGAIN_WITHIN);
        if !again || mutant::is("each-trouble-is-the-first") {
            (self.began, self.late_since, self.failures) = (now, now, 0);
        }
        self.since = Some(now);
    }
}

/// Most reads in flight on one disk: it leaves a quarter of the transfer buffers to others.
fn reads_of_a_disk(transfers: u16) -> u16 {
    (transfers - (transfers / 4).max(1).min(transfers)).max(1)
}

/// The disks of the cell.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Disks {
    disks: Vec<Disk>,
    /// Most reads in flight on one disk.
    reads_max: u16,
    /// How many are in trouble.
    in_trouble: usize,
    /// None is given up before this time.
    keep_until: Time,
    /// Most were in trouble at once until shortly before this time: it is not the disks.
    excused_until: Time,
}

impl Disks {
    /// `count` disks; so many transfer buffers are there for reads.
    pub fn new(count: usize, transfers: u16) -> Disks {
        Disks {
            disks: vec![Disk::default(); count],
            reads_max: reads_of_a_disk(transfers),
            in_trouble: 0,
            keep_until: Time(0),
            excused_until: Time(0),
        }
    }

    fn get(&self, disk: DiskIndex) -> &Disk {
        &self.disks[disk.index()]
    }

    /// Whether all that was asked of it ends in time.
    pub fn answers(&self, disk: DiskIndex) -> bool {
        self.get(disk).overdue == 0
    }

    /// Whether nothing is to be written to it now: it was left alone after an error, or does not answer. What is written
    /// before a late write has ended could be undone by it.
    pub fn is_blocked(&self, disk: DiskIndex, now: Time) -> bool {
        !self.answers(disk) || self.get(disk).not_before > now
    }

    /// When a blocked disk is tried again; `None` where its answer is waited for.
    pub fn retry_at(&self, disk: DiskIndex) -> Option<Time> {
        self.answers(disk).then_some(self.get(disk).not_before)
    }

    /// Whether it has been in trouble for so long that nothing is expected of it. Now and then it is tried all the same.
    /// While most are in trouble at once they are waited for.
    pub fn is_out_of_order(&self, disk: DiskIndex, now: Time) -> bool {
        self.get(disk).is_dead(now) && self.is_blocked(disk, now) && self.excused_until <= now
    }

    /// Whether any disk but this one does not answer, or is to be given up.
    pub fn is_another_doubtful(&self, disk: DiskIndex, now: Time) -> bool {
        let others = self.disks.iter().enumerate().filter(|(n, _)| *n != disk.index());
        others.into_iter().any(|(_, d)| d.overdue > 0 || d.is_given_up(now))
    }

    /// Whether it has done nothing for so long that it is more than slow.
    pub fn hangs(&self, disk: DiskIndex, now: Time) -> bool {
        self.get(disk).hangs(now)
    }

    /// Whether it is known to be slow, and no more than that: a write or a flush that is overdue there is waited for all the same. If
    /// it were done again it would be overdue again.
    pub fn is_only_slow(&self, disk: DiskIndex, now: Time) -> bool {
        let state = self.get(disk);
        state.slow_until > now && !state.hangs(now) && !mutant::is("what-is-overdue-has-failed")
    }

    /// Whether any disk is in trouble.
    pub fn any_in_trouble(&self) -> bool {
        self.in_trouble > 0
    }

    /// Those that are in trouble.
    pub fn in_trouble(&self) -> impl Iterator<Item = DiskIndex> + '_ {
        let all = self.disks.iter().enumerate().filter(|_| self.in_trouble > 0);
        all.filter(|(_, d)| d.is_in_trouble()).map(|(n, _)| DiskIndex(n as u16))
    }

    /// What happens to a disk may bring it into trouble, or out of it.
    fn change(&mut self, disk: DiskIndex, now: Time, what: impl FnOnce(&mut Disk)) {
        let state = &mut self.disks[disk.index()];
        what(state);
        match (state.since, state.is_in_trouble()) {
            (None, true) => {
                state.begin(now);
                self.in_trouble += 1;
            }
            (Some(_), false) => {
                (state.since, state.was_until) = (None, Some(now));
                self.in_trouble -= 1;
            }
            _ => {}
        }
    }

    /// It failed. Returns whether that is news.
    pub fn failed(&mut self, disk: DiskIndex, duty: Duty, now: Time) -> bool {
        let news = self.get(disk).not_before <= now;
        self.change(disk, now, |d| {
            d.slow_until = now;
            d.fails[duty as usize] = true;
            d.not_before = now + AFTER_ERROR;
        });
        self.disks[disk.index()].failures += u32::from(news);
        news
    }

    /// It did what it was asked for.
    pub fn worked(&mut self, disk: DiskIndex, duty: Duty, now: Time) {
        self.change(disk, now, |d| d.fails[duty as usize] = false);
    }

    /// An I/O on it has ended well, and in time.
    pub fn ended_in_time(&mut self, disk: DiskIndex, now: Time) {
        self.disks[disk.index()].late_since = now;
    }

    /// An I/O on it is overdue.
    pub fn overdue(&mut self, disk: DiskIndex, now: Time) {
        self.change(disk, now, |d| d.overdue += 1);
    }

    /// What it failed at while it was missing is forgotten: it begins anew.
    pub fn forgive(&mut self, disk: DiskIndex, now: Time) {
        self.change(disk, now, |d| {
            d.fails = [false; 2];
            d.not_before = now;
            d.slow_until = now;
        });
        self.disks[disk.index()].was_until = None;
    }

    /// A write or a flush has ended that was overdue.
    pub fn ended_late(&mut self, disk: DiskIndex, well: bool, now: Time) {
        self.disks[disk.index()].slow_until = if well { now + SLOW_FOR } else { now };
    }

    /// An overdue I/O has ended. Returns whether it was the last.
    pub fn ended(&mut self, disk: DiskIndex, now: Time) -> bool {
        self.change(disk, now, |d| {
            d.overdue -= 1;
            // It is not dead.
            d.since = d.since.map(|_| now);
        });
        self.answers(disk)
    }

    /// Whether one more read may be in flight on it: a disk that does not answer must not hold all memory for reads.
    pub fn may_read(&self, disk: DiskIndex) -> bool {
        self.get(disk).reads < self.reads_max
    }

    /// So many transfer buffers are left for reads; overdue ones, for which nobody waits, hold the others.
    pub fn limit_reads(&mut self, transfers: u16) {
        if !mutant::is("each-hung-disk-holds-as-much") {
            self.reads_max = reads_of_a_disk(transfers);
        }
    }

    /// A read begins.
    pub fn read_begins(&mut self, disk: DiskIndex) {
        self.disks[disk.index()].reads += 1;
    }

    /// A read has ended. Returns whether another may have waited for that.
    pub fn read_ends(&mut self, disk: DiskIndex) -> bool {
        let was_full = !self.may_read(disk);
        self.disks[disk.index()].reads -= 1;
        was_full && !mutant::is("a-read-that-ends-wakes-nobody")
    }

    /// The disk among those in use to go on without: one that has been in trouble for too long to be only disturbed. None
    /// while most are in trouble at once, and for a while after that: then it is not the disk. Of several it is the one for
    /// which this was wanted longest ago: one that has the last copy of something stays, and must not hide the others.
    pub fn choose_to_give_up(&mut self, now: Time, is_used: impl Fn(DiskIndex) -> bool) -> Option<DiskIndex> {
        if self.in_trouble == 0 {
            return None;
        }
        let hides = mutant::is("a-last-copy-hides-other-disks");
        let (mut used, mut in_trouble, mut first) = (0, 0, None::<DiskIndex>);
        for (n, disk) in self.disks.iter().enumerate() {
            let index = DiskIndex(n as u16);
            if is_used(index) {
                used += 1;
                in_trouble += usize::from(disk.is_in_trouble());
                let before = first.is_none_or(|f| disk.asked_at < self.get(f).asked_at && !hides);
                first = Some(index).filter(|_| disk.is_given_up(now) && before).or(first);
            }
        }
        if in_trouble * 2 > used {
            self.excused_until = now + GIVE_UP_AFTER;
        }
        first.filter(|_| self.keep_until.max(self.excused_until) <= now)
    }

    /// This disk is to be given up now, and no other for a while.
    pub fn give_up_later(&mut self, disk: DiskIndex, now: Time) {
        self.disks[disk.index()].asked_at = now;
        self.keep_until = now + GIVE_UP_AFTER;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: DiskIndex = DiskIndex(0);
    const SECOND: DiskIndex = DiskIndex(1);

    fn ms(ms: u64) -> Time {
        Time(0) + Nanos::from_millis(1_000 + ms)
    }

    /// A disk that has failed at a time, and has been tried in vain until it is given up.
    fn failing_from(disks: &mut Disks, disk: DiskIndex, begin: u64) {
        for after in [0, 300, 600, 900] {
            disks.failed(disk, Duty::Write, ms(begin + after));
        }
    }

    #[test]
    fn a_disk_that_fails_is_given_up_after_a_while_and_one_that_stalls_later() {
        let mut disks = Disks::new(4, 1);
        assert!(disks.failed(FIRST, Duty::Write, ms(0)), "it is news");
        assert!(!disks.failed(FIRST, Duty::Write, ms(299)), "it was left alone");
        assert!(disks.is_blocked(FIRST, ms(598)) && !disks.is_blocked(FIRST, ms(599)));
        assert_eq!(disks.retry_at(FIRST), Some(ms(599)));
        assert!(!disks.is_out_of_order(FIRST, ms(598)));
        disks.failed(FIRST, Duty::Write, ms(899));
        assert!(!disks.is_out_of_order(FIRST, ms(899)), "not tried for long enough");
        disks.failed(FIRST, Duty::Write, ms(900));
        assert!(disks.is_out_of_order(FIRST, ms(900)));
        assert!(!disks.is_out_of_order(FIRST, ms(1_200)), "it is to be tried again");
        disks.overdue(SECOND, ms(0));
        assert_eq!(disks.retry_at(SECOND), None);
        assert!(!disks.is_out_of_order(SECOND, ms(2_999)) && disks.is_out_of_order(SECOND, ms(3_000)));
    }

    #[test]
    fn a_disk_does_again_what_it_failed_at() {
        let mut disks = Disks::new(2, 1);
        disks.failed(FIRST, Duty::Write, ms(0));
        disks.failed(FIRST, Duty::Flush, ms(0));
        disks.worked(FIRST, Duty::Write, ms(400));
        assert!(disks.any_in_trouble());
        disks.worked(FIRST, Duty::Flush, ms(400));
        assert!(!disks.any_in_trouble());
        disks.overdue(FIRST, ms(500));
        disks.overdue(FIRST, ms(500));
        assert!(!disks.ended(FIRST, ms(600)), "one more is overdue");
        assert!(disks.any_in_trouble() && disks.ended(FIRST, ms(700)) && !disks.any_in_trouble());
        disks.failed(FIRST, Duty::Write, ms(800));
        disks.forgive(FIRST, ms(801));
        assert!(!disks.any_in_trouble() && !disks.is_blocked(FIRST, ms(801)));
    }

    #[test]
    fn a_disk_that_was_late_and_good_is_only_slow() {
        let mut disks = Disks::new(2, 1);
        disks.overdue(FIRST, ms(0));
        assert!(!disks.is_only_slow(FIRST, ms(0)), "it may be dead");
        disks.ended_late(FIRST, true, ms(500));
        disks.ended(FIRST, ms(500));
        assert!(disks.is_only_slow(FIRST, ms(10_499)) && !disks.is_only_slow(FIRST, ms(10_500)));
        disks.overdue(FIRST, ms(6_000));
        assert!(disks.is_only_slow(FIRST, ms(8_999)) && !disks.is_only_slow(FIRST, ms(9_000)));
        disks.ended_late(FIRST, false, ms(9_000));
        disks.ended(FIRST, ms(9_000));
        assert!(!disks.is_only_slow(FIRST, ms(9_000)), "it has failed");
    }

    /// Each write takes a second and a half, and ends; nothing is ever in time.
    #[test]
    fn a_disk_that_is_always_late_is_given_up() {
        let mut disks = Disks::new(2, 1);
        let mut given_up_after = None;
        for write in 0..4 {
            let begun = 1_500 * write;
            disks.overdue(FIRST, ms(begun + 1_000));
            given_up_after = given_up_after.or(disks.choose_to_give_up(ms(begun + 1_499), |_| true).map(|_| write));
            assert!(
                !disks.is_out_of_order(FIRST, ms(begun + 1_499)),
                "where there is no other copy it will do"
            );
            disks.ended(FIRST, ms(begun + 1_500));
            assert!(!disks.any_in_trouble());
        }
        assert_eq!(given_up_after, Some(2));
        disks.overdue(FIRST, ms(7_000));
        assert!(
            disks.is_out_of_order(FIRST, ms(7_000)),
            "where there is none nobody waits for ever"
        );
    }

    /// Most writes end well, and those to one place never do.
    #[test]
    fn a_disk_of_which_a_part_is_broken_is_given_up() {
        let mut disks = Disks::new(2, 1);
        for time in [0, 400, 800] {
            disks.failed(FIRST, Duty::Write, ms(time));
            disks.worked(FIRST, Duty::Write, ms(time + 10));
        }
        disks.failed(FIRST, Duty::Write, ms(1_200));
        assert_eq!(disks.choose_to_give_up(ms(1_200), |_| true), Some(FIRST));
        let mut disks = Disks::new(2, 1);
        for time in [0, 2_000, 4_000, 6_000, 8_000] {
            disks.failed(FIRST, Duty::Write, ms(time));
            assert_eq!(
                disks.choose_to_give_up(ms(time), |_| true),
                None,
                "now and then something fails"
            );
            disks.worked(FIRST, Duty::Write, ms(time + 10));
        }
    }

    #[test]
    fn doubts_are_of_any_disk_but_one() {
        let mut disks = Disks::new(4, 1);
        assert!(!disks.is_another_doubtful(FIRST, ms(0)));
        disks.overdue(FIRST, ms(0));
        assert!(!disks.is_another_doubtful(FIRST, ms(0)) && disks.is_another_doubtful(SECOND, ms(0)));
        let mut disks = Disks::new(4, 1);
        failing_from(&mut disks, SECOND, 0);
        assert!(disks.is_another_doubtful(FIRST, ms(900)) && !disks.is_another_doubtful(SECOND, ms(900)));
    }

    #[test]
    fn reads_in_flight_are_counted() {
        let mut disks = Disks::new(1, 3);
        disks.read_begins(FIRST);
        assert!(disks.may_read(FIRST));
        disks.read_begins(FIRST);
        assert!(!disks.may_read(FIRST));
        assert!(disks.read_ends(FIRST), "another may have waited");
        assert!(disks.may_read(FIRST) && !disks.read_ends(FIRST));
        disks.limit_reads(2);
        disks.read_begins(FIRST);
        assert!(!disks.may_read(FIRST), "of two one is for others");
        disks.limit_reads(0);
        assert!(disks.read_ends(FIRST) && disks.may_read(FIRST), "one is always allowed");
    }

    #[test]
    fn the_first_of_few_is_given_up() {
        let mut disks = Disks::new(4, 1);
        assert_eq!(disks.choose_to_give_up(ms(0), |_| true), None);
        failing_from(&mut disks, SECOND, 0);
        assert_eq!(
            disks.choose_to_give_up(ms(899), |d| d != SECOND),
            None,
            "it is not used"
        );
        assert_eq!(disks.choose_to_give_up(ms(900), |_| true), Some(SECOND));
        disks.give_up_later(SECOND, ms(900));
        assert_eq!(disks.choose_to_give_up(ms(1_799), |_| true), None);
        assert_eq!(disks.choose_to_give_up(ms(1_800), |_| true), Some(SECOND));
        failing_from(&mut disks, FIRST, 1_000);
        assert_eq!(
            disks.choose_to_give_up(ms(1_900), |_| true),
            Some(FIRST),
            "two of four are not most"
        );
        disks.give_up_later(FIRST, ms(1_900));
        assert_eq!(
            disks.choose_to_give_up(ms(2_800), |_| true),
            Some(SECOND),
            "one that stays hides no other"
        );
    }

    #[test]
    fn when_most_fail_it_is_not_the_disks() {
        let mut disks = Disks::new(3, 1);
        failing_from(&mut disks, FIRST, 0);
        failing_from(&mut disks, SECOND, 0);
        assert_eq!(disks.choose_to_give_up(ms(1_000), |_| true), None);
        assert!(!disks.is_out_of_order(FIRST, ms(1_000)), "it is waited for");
        disks.worked(SECOND, Duty::Write, ms(1_100));
        assert_eq!(disks.choose_to_give_up(ms(1_899), |_| true), None, "so shortly after");
        assert_eq!(disks.choose_to_give_up(ms(1_900), |_| true), Some(FIRST));
    }
}

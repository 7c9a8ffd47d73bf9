//! `kill -9` of the owner, of the mirror and of both, under a load that checks every byte.
//!
//! `TWINCELL_KILL_CYCLES` says how many kills with data at stake (100 unless told), `TWINCELL_KILL_MINUTES` for how
//! long instead, `TWINCELL_KILL_SEED` which load.

use std::time::{Duration, Instant};
use twincell_rig::kill::{Campaign, Tally, Victim};

const CYCLES: u64 = 100;
/// Of all kills, so many must have had data at stake; else the test tests nothing.
const COUNTED_PERCENT: u64 = 50;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

#[test]
fn cycles_under_load() {
    let end = setting("TWINCELL_KILL_MINUTES").map(|m| Instant::now() + Duration::from_secs(m * 60));
    let cycles = setting("TWINCELL_KILL_CYCLES").unwrap_or(CYCLES);
    let is_over = |done: Tally| match end {
        Some(end) => Instant::now() > end,
        None => done.counted >= cycles || done.cycles * COUNTED_PERCENT > cycles * 100,
    };
    let seed = setting("TWINCELL_KILL_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("TWINCELL_KILL_SEED={seed}");
    let mut campaign = Campaign::start(seed);
    let order = [Victim::Owner, Victim::Mirror, Victim::Owner, Victim::Both];
    for victim in order.into_iter().cycle() {
        let counted = campaign.cycle(victim);
        let tally = campaign.tally();
        println!(
            "{}: killed {victim:?}, data at stake: {counted}; {tally:?}",
            tally.cycles
        );
        if is_over(tally) {
            break;
        }
    }
    let tally = campaign.end();
    println!("{tally:?}");
    assert!(
        tally.counted * 100 >= tally.cycles * COUNTED_PERCENT,
        "too few kills had data at stake: {tally:?}"
    );
    assert!(tally.writes > 0);
}

//! The figures, and the list of survivors.

use crate::failed::{Failed, at};
use crate::hunt::{Outcome, Seen};
use crate::list::Mutant;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Prints the figures.
pub fn summary(mutants: &[Mutant], found: &BTreeMap<String, Outcome>) {
    let outcomes: Vec<_> = mutants.iter().filter_map(|m| found.get(&m.name)).collect();
    let count = |is: &dyn Fn(&Outcome) -> bool| outcomes.iter().filter(|o| is(o)).count();
    let by = |start: &str| count(&|o| matches!(o, Outcome::Caught(by) if by.starts_with(start)));
    let caught = count(&|o| matches!(o, Outcome::Caught(_)));
    let timed_out =
        count(&|o| matches!(o, Outcome::Caught(by) if by.ends_with("does not end") || by.ends_with("not end")));
    let missed = |seen| count(&|o| matches!(o, Outcome::Missed(s, _) if *s == seen));
    let all_missed = count(&|o| matches!(o, Outcome::Missed(..)));
    println!("\n{} mutants:", mutants.len());
    println!(
        "{caught:>6} caught, {} by seeds and {} by tests; {timed_out} of them do not end",
        by("seed "),
        by("test ")
    );
    println!(
        "{all_missed:>6} missed: {} change what happens in the seeds, {} do not, to {} neither seeds nor tests come",
        missed(Seen::Different),
        missed(Seen::Same),
        missed(Seen::Unreached)
    );
    println!("{:>6} do not build", count(&|o| *o == Outcome::DoesNotBuild));
    println!(
        "{:>6} are only in a build with a feature",
        count(&|o| *o == Outcome::NotCompiled)
    );
    let open = mutants.len() - outcomes.len();
    if open > 0 {
        println!("{open:>6} were not tried");
    }
    let percent = 100.0 * caught as f64 / (caught + all_missed).max(1) as f64;
    println!("{percent:>6.1} % of those that were tried are caught");
}

/// Writes the survivors, with their numbers.
pub fn survivors(mutants: &[Mutant], found: &BTreeMap<String, Outcome>, path: &Path) -> Result<(), Failed> {
    let mut text = String::new();
    for seen in [Seen::Different, Seen::Same, Seen::Unreached] {
        let title = match seen {
            Seen::Different => "what happens in the seeds is different, and no oracle says so",
            Seen::Same => "what happens in the seeds is the same",
            Seen::Unreached => "nothing comes there",
        };
        let _ = writeln!(text, "# {title}");
        let missed = |m: &&Mutant| matches!(found.get(&m.name), Some(Outcome::Missed(s, _)) if *s == seen);
        for mutant in mutants.iter().filter(missed) {
            let _ = writeln!(text, "{:>5} {}", mutant.number, mutant.name);
        }
    }
    std::fs::write(path, text).map_err(at(path))?;
    println!("the survivors: {}", path.display());
    Ok(())
}

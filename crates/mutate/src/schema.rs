//! All mutants in one tree: what does not compile is taken out again, until the tree compiles.

use crate::compiler::{CompileError, check};
use crate::failed::Failed;
use crate::list::{Genre, Mutant};
use crate::modules;
use crate::render::{Rendered, render};
use crate::sites::{Sites, sites};
use crate::tree::{TOP, Tree};
use std::collections::{BTreeMap, BTreeSet};

/// Errors that a mutant may owe to the switch around it: of borrows and moves, and of types that are not known.
const OF_THE_SWITCH: [&str; 12] = [
    "E0282", "E0283", "E0284", "E0373", "E0381", "E0382", "E0499", "E0502", "E0505", "E0506", "E0597", "E0716",
];

/// What there is to be done with a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in the tree; its place is known by the number of the first mutant there.
    Switched { place: u32 },
    /// It has to be built by itself.
    Apart,
    /// It does not compile.
    DoesNotBuild,
    /// Only a build with a feature has it.
    NotCompiled,
}

/// The mutants and the sources with all of them.
pub struct Schema<'m> {
    package: &'m str,
    mutants: &'m [Mutant],
    fates: BTreeMap<u32, Fate>,
    files: BTreeMap<String, Rendered>,
}

impl<'m> Schema<'m> {
    /// Finds the sources that have all mutants in them that compile, by attempts in `tree`.
    pub fn settle(tree: &Tree, package: &'m str, mutants: &'m [Mutant]) -> Result<Schema<'m>, Failed> {
        tree.add_switch()?;
        let mut schema = Schema {
            package,
            mutants,
            fates: BTreeMap::new(),
            files: BTreeMap::new(),
        };
        let compiled = modules::compiled(&tree.root.join(TOP))?;
        for mutant in mutants {
            let is_compiled = compiled.contains(&tree.root.join(&mutant.file));
            let fate = if is_compiled {
                Fate::Switched { place: 0 }
            } else {
                Fate::NotCompiled
            };
            schema.fates.insert(mutant.number, fate);
        }
        while !schema.compiles(tree)? {}
        Ok(schema)
    }

    /// Writes these sources into another tree, which is not built again if it had them before.
    pub fn write(&self, tree: &Tree) -> Result<(), Failed> {
        tree.add_switch()?;
        let mut files = self.files.iter();
        files.try_for_each(|(file, rendered)| tree.write(file, rendered.text.as_bytes()))
    }

    /// The sources that are not as in the workspace.
    pub fn files(&self) -> Vec<&str> {
        self.files.keys().map(String::as_str).collect()
    }

    /// What is to be done with each mutant, by its number.
    pub fn fates(self) -> BTreeMap<u32, Fate> {
        self.fates
    }

    /// One attempt; when it does not compile, takes out whatever is to blame.
    fn compiles(&mut self, tree: &Tree) -> Result<bool, Failed> {
        // The switch is declared at the top, even if no mutant is there.
        let files = self.mutants.iter().map(|m| m.file.as_str()).chain([TOP]);
        for file in files.collect::<BTreeSet<_>>() {
            self.rewrite(tree, file)?;
        }
        let errors = check(tree, self.package)?;
        let Some(first) = errors.first() else {
            return Ok(true);
        };
        let before = self.fates.clone();
        let own = errors.iter().filter(|e| self.blame_a_mutant(e)).count();
        // Other errors may follow from these.
        if own == 0 {
            errors.iter().for_each(|e| self.blame_a_place(e));
        }
        println!("{} errors of the compiler, {own} of them within a mutant", errors.len());
        if before == self.fates {
            return Err(Failed(format!(
                "no mutant is to blame: {} {:?}",
                first.text, first.places
            )));
        }
        Ok(false)
    }

    fn rewrite(&mut self, tree: &Tree, file: &str) -> Result<(), Failed> {
        let text = tree.original(file)?;
        let fates = &self.fates;
        let switched = |m: &&Mutant| m.file == file && matches!(fates[&m.number], Fate::Switched { .. });
        let found = sites(&text, self.mutants.iter().filter(switched));
        let found: Sites = found.map_err(|e| Failed(format!("{file}: {e}")))?;
        self.fates.extend(found.apart.iter().map(|n| (*n, Fate::Apart)));
        self.fates
            .extend(found.not_compiled.iter().map(|n| (*n, Fate::NotCompiled)));
        for edit in &found.edits {
            let place = edit.numbers.first().copied().unwrap_or_default();
            let fates = edit.numbers.iter().map(|n| (*n, Fate::Switched { place }));
            self.fates.extend(fates);
        }
        let mut rendered = render(&text, found.edits);
        rendered.text.push_str(Tree::appendix(file));
        tree.write(file, rendered.text.as_bytes())?;
        self.files.insert(file.to_owned(), rendered);
        Ok(())
    }

    /// Whether the error is within what only one mutant has, which is taken out then.
    fn blame_a_mutant(&mut self, error: &CompileError) -> bool {
        let owners = error.places.iter().filter_map(|(file, place)| {
            let own = self.files.get(file)?.own.iter();
            let around = own.filter(|(own, _)| own.start <= place.start && place.end <= own.end);
            around.min_by_key(|(own, _)| own.len()).map(|(_, number)| *number)
        });
        let owners: Vec<u32> = owners.collect();
        for number in &owners {
            let fate = self.without(&self.mutants[*number as usize - 1], &error.code);
            self.fates.insert(*number, fate);
        }
        !owners.is_empty()
    }

    /// Whether such an error says that the mutant would not compile by itself either.
    fn without(&self, mutant: &Mutant, code: &str) -> Fate {
        let returns = mutant.function.as_ref().map_or("", |f| f.return_type.as_str());
        let of_the_switch = match mutant.genre {
            Genre::FnValue => returns.contains("impl "),
            // Two branches have one type.
            _ => code == "E0308",
        };
        if of_the_switch || OF_THE_SWITCH.contains(&code) {
            Fate::Apart
        } else {
            Fate::DoesNotBuild
        }
    }

    /// The switch itself does not compile there: its mutants have to be built by themselves.
    fn blame_a_place(&mut self, error: &CompileError) {
        for (file, place) in &error.places {
            let Some(rendered) = self.files.get(file) else {
                continue;
            };
            // The edit that sets a function beside itself has none.
            let edits = rendered.edits.iter().filter(|(_, numbers)| !numbers.is_empty());
            let around = edits
                .clone()
                .filter(|(e, _)| e.start <= place.start && place.end <= e.end);
            let within = edits.filter(|(e, _)| place.start <= e.start && e.end <= place.end);
            let blamed: Vec<u32> = match around.min_by_key(|(e, _)| e.len()) {
                Some((_, numbers)) => numbers.clone(),
                None => within.flat_map(|(_, numbers)| numbers.clone()).collect(),
            };
            self.fates.extend(blamed.into_iter().map(|n| (n, Fate::Apart)));
        }
    }
}

/// Which of the mutants that cannot be switched do not compile by themselves either.
pub fn check_apart(tree: &Tree, package: &str, mutants: &[&Mutant]) -> Result<BTreeSet<u32>, Failed> {
    let mut broken = BTreeSet::new();
    for mutant in mutants {
        let text = tree.original(&mutant.file)?;
        tree.write(&mutant.file, mutant.applied_to(&text).as_bytes())?;
        if !check(tree, package)?.is_empty() {
            broken.insert(mutant.number);
        }
        tree.write(&mutant.file, text.as_bytes())?;
    }
    Ok(broken)
}

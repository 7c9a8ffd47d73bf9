//! Scripts, and the mutants that they catch.

/// Runs a script. With the feature `mutants` it runs once more with each of `mutants`, which must be caught; or, if
/// `TWINCELL_MUTANT` names a mutant, with that one only, so that whoever measures sees whether it is caught.
#[cfg(not(feature = "mutants"))]
pub fn trace(_mutants: &[&str], script: fn()) {
    script();
}

/// Runs a script. With the feature `mutants` it runs once more with each of `mutants`, which must be caught; or, if
/// `TWINCELL_MUTANT` names a mutant, with that one only, so that whoever measures sees whether it is caught.
#[cfg(feature = "mutants")]
pub fn trace(mutants: &[&str], script: fn()) {
    use std::sync::Mutex;
    use twincell_core::mutant::{NULL, activate};
    // A mutant is active in the whole process: one script at a time.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Ok(mutant) = std::env::var("TWINCELL_MUTANT") {
        assert!(activate(&mutant), "there is no mutant {mutant}");
        return script();
    }
    script();
    for mutant in mutants {
        assert!(activate(mutant), "there is no mutant {mutant}");
        let result = std::panic::catch_unwind(script);
        activate(NULL);
        assert!(result.is_err(), "the script does not catch the mutant {mutant}");
    }
}

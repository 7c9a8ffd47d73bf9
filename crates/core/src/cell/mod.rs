//! Membership: who is in, decided by ballot and by nothing else (DESIGN section 6).
pub mod record;

//! The link between the controllers (DESIGN section 7).
pub mod frame;

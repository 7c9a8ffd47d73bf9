//! Where data lie: disks, PSEGs, RStores, LUNs (DESIGN section 8).
pub mod allocate;
pub mod metadata;

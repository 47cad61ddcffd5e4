//! Podgres.

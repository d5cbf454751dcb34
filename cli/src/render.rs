//! Reports in the forms that people and programs read.

pub mod control;
pub mod info_json;
mod info_lock;
pub mod info_text;
pub mod ls;

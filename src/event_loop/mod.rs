//! The watch over event loops: a [`Heart`] that beats on each loop, and one native thread, the [`Watcher`], that looks
//! whether it does.
//!
//! A beat is a timer of the loop that notes when the next one is due. When a beat is overdue by the threshold, the loop is
//! blocked *now*: the watcher has it examined, once a [`Block`]. It knows nothing of Python; what is done with a loop that is
//! blocked is its owner's ([`Watched`]).
//!
//! While every loop is well the watcher wakes about once a threshold and reads one number a loop.

mod collection;
mod heart;
mod watcher;

pub use collection::{begin_collection, end_collection};
pub use heart::{Beat, Block, Heart, Look};
pub use watcher::{PerProcess, Watched, Watcher};

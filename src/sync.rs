//! What the threads of [`pipeline::batch`](crate::pipeline::batch) meet at, under one name, so that
//! `tests/the_queue_hands_over_in_every_order.rs` can put a model of it in its place.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard};

pub(crate) use tokio::sync::Notify;

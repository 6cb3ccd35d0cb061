//! Logs and log directories on a real file system.

mod appending;
mod batch;
mod compacting;
mod flushing;
mod full_disk;
mod inspecting;
mod log_dirs;
mod model;
mod recovering;
mod regions;
mod relocating;
mod retaining;
mod scrubbing;
mod truncating;

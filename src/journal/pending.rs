//! What a journal could not take: kept in memory, and written first when it takes something again.

use std::io;

use super::{History, Journal, Record};
use crate::disk::Disk;

/// Records in the order in which they happened, newer than everything in the journal.
#[derive(Default)]
pub struct Pending(Vec<Record>);

impl Pending {
    /// Keeps one more.
    pub fn push(&mut self, record: Record) {
        self.0.push(record);
    }

    /// Puts them on top of what the journal says.
    pub fn apply(&self, history: &mut History) {
        for record in &self.0 {
            history.apply(record);
        }
    }

    /// Writes them, oldest first; what cannot be written stays.
    pub fn flush<D: Disk>(&mut self, disk: &D, journal: &mut Journal<D::Handle>) -> io::Result<()> {
        while let Some(oldest) = self.0.first() {
            journal.add(disk, oldest)?;
            self.0.remove(0);
        }
        // It is needed once, and kept by each of thousands.
        self.0 = Vec::new();
        Ok(())
    }

    /// Whether the journal has everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is a pair among them that neither the journal nor the file has.
    #[must_use]
    pub fn has_the_only_copy(&self) -> bool {
        let mut alone = History::default();
        self.apply(&mut alone);
        alone.unpublished().is_some()
    }
}

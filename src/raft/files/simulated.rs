//! A disk in memory that crashes. What a process sees of it and what power loss would leave are kept apart.
//!
//! Of each file it has the bytes that were flushed, and of each sector (512 bytes: what disks write whole or not at all) and of its length
//! every state since. Of each folder it has the names that were flushed, and every change of names since. Power loss leaves of each sector, each
//! length and each change of names any of these states, whatever it leaves of the others: so no order counts but that of flushes, and a write of
//! several sectors is torn in every way. Real disks and file systems do less harm than this one.
//!
//! A change of names is whole or not at all, also a rename between folders. Flushing a file does not flush its name.
//!
//! A flush of a file that fails does so as Linux has it: what was to be flushed may be on the disk or not, sector by sector, the file goes on
//! showing it, and no later flush writes it. Names and lengths are tried again by the next flush: a file system that cannot write its journal stops.

use super::Open;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, SeekFrom};
use std::path::{Component, Path};
use std::sync::Arc;
use std::time::Duration;

/// What is on a disk whole or not at all.
const SECTOR: usize = 512;

/// A file's or folder's number.
type Id = u64;

/// The root folder's.
const ROOT: Id = 0;

/// A disk. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Arc<Mutex<Live>>);

impl PartialEq for Disk {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Disk {}

#[derive(Debug)]
struct Live {
    state: State,
    /// Bytes of a segment of a log that is made here.
    segment_bytes: u64,
    chance: Chance,
    trouble: Trouble,
    /// How long a batch of the log takes.
    pause: Duration,
    /// What was so after each change and each flush, with what the test had noted then. `None` while nothing is recorded.
    moments: Option<Vec<Moment>>,
    noted: [usize; 3],
}

/// What goes wrong: the calls of its kind that succeed before it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trouble {
    #[default]
    None,
    /// One flush fails, of a file or of a folder.
    Sync(u64),
    /// From then on whatever needs space is refused; the first write that is may be stored in part.
    Full(u64),
}

/// A disk at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    /// What the test had noted then.
    pub(crate) noted: [usize; 3],
    /// The call that had just been made.
    pub(crate) call: String,
    state: State,
    segment_bytes: u64,
}

#[derive(Clone, Debug, Default)]
struct State {
    files: BTreeMap<Id, Content>,
    folders: BTreeMap<Id, Folder>,
    /// Changes of names that were not flushed, oldest first.
    changes: Vec<Change>,
    next: Id,
}

#[derive(Clone, Debug, Default)]
struct Folder {
    now: BTreeMap<String, Id>,
    durable: BTreeMap<String, Id>,
}

/// What one call did to names: of which folder, which name, and what it means then.
type Change = Vec<(Id, String, Option<Id>)>;

type Sector = [u8; SECTOR];

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Lengths since the last flush.
    lengths: Vec<usize>,
    /// Of each sector what it was since the last flush.
    sectors: BTreeMap<usize, Vec<Sector>>,
    /// Sectors that were ever written: the others are holes.
    stored: BTreeSet<usize>,
}

/// An open file.
#[derive(Debug)]
pub(crate) struct File {
    disk: Disk,
    id: Id,
    at: u64,
}

/// A small generator: the same seed draws the same numbers on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    /// splitmix64.
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }
}

impl Disk {
    /// An empty disk whose own choices follow from the seed.
    pub(crate) fn new(seed: u64, segment_bytes: u64) -> Self {
        let state = State {
            folders: BTreeMap::from([(ROOT, Folder::default())]),
            next: ROOT + 1,
            ..State::default()
        };
        Self::of(state, seed, segment_bytes)
    }

    fn of(state: State, seed: u64, segment_bytes: u64) -> Self {
        Self(Arc::new(Mutex::new(Live {
            state,
            segment_bytes,
            chance: Chance(seed),
            trouble: Trouble::None,
            pause: Duration::ZERO,
            moments: None,
            noted: [0; 3],
        })))
    }

    /// Records every moment from now on.
    pub(crate) fn record(&self) {
        let mut live = self.0.lock();
        live.moments = Some(Vec::new());
        live.recorded(|| "begin".to_owned());
    }

    /// The moments since [`Disk::record`].
    pub(crate) fn moments(&self) -> Vec<Moment> {
        self.0.lock().moments.take().unwrap_or_default()
    }

    /// What goes with the moments from here on.
    pub(crate) fn note(&self, numbers: [usize; 3]) {
        self.0.lock().noted = numbers;
    }

    /// The disk as it is now.
    pub(crate) fn moment(&self) -> Moment {
        self.0.lock().moment("now".to_owned())
    }

    /// The disk after a crash at this moment: of the process alone, or with power loss, which leaves of what is undecided whatever chance picks.
    pub(crate) fn after_crash(&self, power: bool, chance: &mut Chance) -> Self {
        let moment = self.moment();
        if !power {
            return moment.after_kill(chance.draw());
        }
        let picked: Vec<usize> = moment
            .undecided()
            .into_iter()
            .map(|states| at(chance.below(states as u64)))
            .collect();
        moment.after_power_loss(chance.draw(), &picked)
    }

    /// What will go wrong, from now on counted.
    pub(crate) fn trouble(&self, trouble: Trouble) {
        self.0.lock().trouble = trouble;
    }

    /// How long each batch of the log takes from now on.
    pub(crate) fn slow(&self, pause: Duration) {
        self.0.lock().pause = pause;
    }

    pub(crate) fn pause(&self) -> Duration {
        self.0.lock().pause
    }

    /// Whether what was to go wrong has not happened yet.
    pub(crate) fn is_trouble_ahead(&self) -> bool {
        matches!(self.0.lock().trouble, Trouble::Sync(_))
    }

    /// Flips a bit of a file, on the disk and in what is seen of it.
    pub(crate) fn flip(&self, path: &Path, byte: usize, bit: u8) {
        let mut live = self.0.lock();
        let id = live.state.find(path).expect("a file that is there");
        let content = live.state.files.get_mut(&id).expect("a file, no folder");
        content.now[byte] ^= 1 << bit;
        content.durable[byte] ^= 1 << bit;
    }

    /// Bytes of a segment of a log that is made here.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.0.lock().segment_bytes
    }

    pub(super) fn draw(&self) -> u64 {
        self.0.lock().chance.draw()
    }

    pub(super) fn open(&self, path: &Path, how: Open) -> io::Result<File> {
        let mut live = self.0.lock();
        let id = match (live.state.find(path), how) {
            (Some(_), Open::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(id), _) if !live.state.files.contains_key(&id) => {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            (Some(id), _) => id,
            (None, Open::Read | Open::Write) => return Err(io::ErrorKind::NotFound.into()),
            (None, _) => {
                live.needs_space()?;
                let id = live.state.new_id();
                live.state.files.insert(id, Content::default());
                let (folder, name) = live.state.place(path)?;
                live.state.change(vec![(folder, name, Some(id))]);
                live.recorded(|| format!("create {}", path.display()));
                id
            }
        };
        if how == Open::Create && !live.state.file(id).now.is_empty() {
            live.state.file(id).resize(0);
            live.recorded(|| format!("empty {}", path.display()));
        }
        Ok(File {
            disk: self.clone(),
            id,
            at: 0,
        })
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.0.lock().state.find(path).is_some()
    }

    pub(super) fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut live = self.0.lock();
        if live.state.find(path).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        live.needs_space()?;
        let (folder, name) = live.state.place(path)?;
        let id = live.state.new_id();
        live.state.folders.insert(id, Folder::default());
        live.state.change(vec![(folder, name, Some(id))]);
        live.recorded(|| format!("create folder {}", path.display()));
        Ok(())
    }

    pub(super) fn create_folders(&self, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            self.create_folders(parent)?;
        }
        match self.create_folder(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            end => end,
        }
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let live = self.0.lock();
        let id = live.state.find(path).ok_or(io::ErrorKind::NotFound)?;
        let folder = live.state.folders.get(&id).ok_or(io::ErrorKind::NotADirectory)?;
        Ok(folder.now.keys().cloned().collect())
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut live = self.0.lock();
        let id = live.state.find(from).ok_or(io::ErrorKind::NotFound)?;
        let (folder, name) = live.state.place(from)?;
        let (new_folder, new_name) = live.state.place(to)?;
        live.state
            .change(vec![(folder, name, None), (new_folder, new_name, Some(id))]);
        live.recorded(|| format!("rename {} to {}", from.display(), to.display()));
        Ok(())
    }

    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let inside = match self.list(path) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Vec::new(),
            inside => inside?,
        };
        for name in inside {
            self.remove(&path.join(name))?;
        }
        let mut live = self.0.lock();
        let (folder, name) = live.state.place(path)?;
        live.state.change(vec![(folder, name, None)]);
        live.recorded(|| format!("remove {}", path.display()));
        Ok(())
    }

    pub(super) fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut live = self.0.lock();
        let id = live.state.find(path).ok_or(io::ErrorKind::NotFound)?;
        let fails = live.sync_fails();
        let Live { state, chance, .. } = &mut *live;
        for change in std::mem::take(&mut state.changes) {
            let flushed = change.iter().any(|(folder, ..)| *folder == id);
            if flushed && (!fails || chance.below(2) == 0) {
                state.keep(&change);
            } else {
                state.changes.push(change);
            }
        }
        live.recorded(|| format!("sync folder {}", path.display()));
        failed_if(fails)
    }
}

fn failed_if(fails: bool) -> io::Result<()> {
    /// `EIO`.
    const IO: i32 = 5;
    match fails {
        true => Err(io::Error::from_raw_os_error(IO)),
        false => Ok(()),
    }
}

impl Live {
    fn moment(&self, call: String) -> Moment {
        Moment {
            noted: self.noted,
            call,
            state: self.state.clone(),
            segment_bytes: self.segment_bytes,
        }
    }

    fn recorded(&mut self, call: impl FnOnce() -> String) {
        if let Some(mut moments) = self.moments.take() {
            moments.push(self.moment(call()));
            self.moments = Some(moments);
        }
    }

    fn sync_fails(&mut self) -> bool {
        match &mut self.trouble {
            Trouble::Sync(0) => {
                self.trouble = Trouble::None;
                true
            }
            Trouble::Sync(left) => {
                *left -= 1;
                false
            }
            Trouble::None | Trouble::Full(_) => false,
        }
    }

    fn needs_space(&mut self) -> io::Result<()> {
        match &mut self.trouble {
            Trouble::Full(0) => Err(io::ErrorKind::StorageFull.into()),
            Trouble::Full(left) => {
                *left -= 1;
                Ok(())
            }
            Trouble::None | Trouble::Sync(_) => Ok(()),
        }
    }
}

impl Moment {
    /// Of how many states each undecided thing may be, if power is lost now. State 0 is the one that was flushed, the last is the newest.
    pub(crate) fn undecided(&self) -> Vec<usize> {
        let mut undecided = Vec::new();
        self.state.lost(&mut |states| {
            undecided.push(states);
            0
        });
        undecided
    }

    /// Combinations of these states, for [`Moment::after_power_loss`]: all of them, or if there are more than `most`, nothing, everything, one
    /// thing alone, everything but one thing (each in turn, or some of many), and some by chance.
    pub(crate) fn combinations(&self, most: usize, chance: &mut Chance) -> Vec<Vec<usize>> {
        let undecided = self.undecided();
        let all = undecided
            .iter()
            .try_fold(1_usize, |all, states| all.checked_mul(*states))
            .filter(|all| *all <= most);
        if let Some(all) = all {
            return (0..all).map(|number| nth(&undecided, number)).collect();
        }
        let newest: Vec<usize> = undecided.iter().map(|states| states - 1).collect();
        let mut combinations = vec![vec![0; undecided.len()], newest.clone()];
        let (things, some) = (undecided.len(), undecided.len().min(most / 4));
        for number in 0..some {
            // Of many things, some that lie anywhere: what is torn is not always torn where it begins.
            let place = match some == things {
                true => number,
                false => at(chance.below(things as u64)),
            };
            let (mut alone, mut without) = (vec![0; things], newest.clone());
            (alone[place], without[place]) = (newest[place], 0);
            combinations.extend([alone, without]);
        }
        while combinations.len() < most {
            let by_chance = undecided.iter().map(|states| chance.below(*states as u64));
            combinations.push(by_chance.map(at).collect());
        }
        combinations
    }

    /// The disk after power loss, for these states of what is undecided.
    pub(crate) fn after_power_loss(&self, seed: u64, states: &[usize]) -> Disk {
        let mut states = states.iter();
        let state = self
            .state
            .lost(&mut |_| *states.next().expect("as many as are undecided"));
        Disk::of(state, seed, self.segment_bytes)
    }

    /// The disk after the death of the process: all that was written is seen, and what was not flushed may still be lost with the power.
    pub(crate) fn after_kill(&self, seed: u64) -> Disk {
        Disk::of(self.state.clone(), seed, self.segment_bytes)
    }
}

/// The combination of this number, counted as with wheels of so many digits.
fn nth(undecided: &[usize], mut number: usize) -> Vec<usize> {
    let digit = |states: &usize| {
        let digit = number % states;
        number /= states;
        digit
    };
    undecided.iter().map(digit).collect()
}

impl State {
    fn new_id(&mut self) -> Id {
        self.next += 1;
        self.next - 1
    }

    fn file(&mut self, id: Id) -> &mut Content {
        self.files.get_mut(&id).expect("files that are open stay")
    }

    fn find(&self, path: &Path) -> Option<Id> {
        let mut id = ROOT;
        for part in path.components() {
            if let Component::Normal(name) = part {
                let name = name.to_str().expect("names of ours are text");
                id = *self.folders.get(&id)?.now.get(name)?;
            }
        }
        Some(id)
    }

    /// The folder that a path's last name is in, and that name.
    fn place(&self, path: &Path) -> io::Result<(Id, String)> {
        let folder = path.parent().and_then(|parent| self.find(parent));
        let name = path.file_name().and_then(|name| name.to_str());
        match (folder, name) {
            (Some(folder), Some(name)) => Ok((folder, name.to_owned())),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn change(&mut self, change: Change) {
        for (folder, name, id) in &change {
            let folder = self.folders.get_mut(folder).expect("folders stay");
            put(&mut folder.now, name, *id);
        }
        self.changes.push(change);
    }

    /// Makes a change of names durable.
    fn keep(&mut self, change: &Change) {
        for (folder, name, id) in change {
            let folder = self.folders.get_mut(folder).expect("folders stay");
            put(&mut folder.durable, name, *id);
        }
    }

    /// What power loss leaves, where `pick` chooses one of so many states of each thing.
    fn lost(&self, pick: &mut dyn FnMut(usize) -> usize) -> Self {
        let mut left = self.clone();
        // Of each file first, whether its name survives or not: so it is always the same things that are picked.
        for id in self.nameable() {
            if let Some(content) = left.files.get_mut(&id) {
                *content = content.lost(pick);
            }
        }
        for change in std::mem::take(&mut left.changes) {
            if pick(2) == 1 {
                left.keep(&change);
            }
        }
        for folder in left.folders.values_mut() {
            folder.now = folder.durable.clone();
        }
        let named = left.nameable();
        left.files.retain(|id, _| named.contains(id));
        left.folders.retain(|id, _| *id == ROOT || named.contains(id));
        left
    }

    /// Everything that has a name now or may have one after power loss.
    fn nameable(&self) -> BTreeSet<Id> {
        let folders = self.folders.values();
        let named = folders.flat_map(|folder| folder.now.values().chain(folder.durable.values()));
        let changed = self.changes.iter().flatten().filter_map(|(_, _, id)| id.as_ref());
        named.chain(changed).copied().collect()
    }
}

fn put(names: &mut BTreeMap<String, Id>, name: &str, id: Option<Id>) {
    match id {
        Some(id) => names.insert(name.to_owned(), id),
        None => names.remove(name),
    };
}

/// A sector of these bytes, with zeros behind their end.
fn sector(bytes: &[u8], number: usize) -> Sector {
    let mut sector = [0; SECTOR];
    let from = (number * SECTOR).min(bytes.len());
    let some = &bytes[from..bytes.len().min(from + SECTOR)];
    sector[..some.len()].copy_from_slice(some);
    sector
}

fn put_sector(bytes: &mut [u8], number: usize, content: &Sector) {
    let from = (number * SECTOR).min(bytes.len());
    let to = bytes.len().min(from + SECTOR);
    bytes[from..to].copy_from_slice(&content[..to - from]);
}

impl Content {
    fn resize(&mut self, length: usize) {
        let before = self.now.len();
        self.now.resize(length, 0);
        self.note_length();
        // What was beyond the end is zeros if the file grows again.
        self.note_sectors(length, before);
        self.stored.retain(|number| number * SECTOR < length);
    }

    fn write(&mut self, bytes: &[u8], at: usize) {
        let end = at + bytes.len();
        if end > self.now.len() {
            self.now.resize(end, 0);
            self.note_length();
        }
        self.now[at..end].copy_from_slice(bytes);
        self.note_sectors(at, end);
        self.stored.extend(at / SECTOR..end.div_ceil(SECTOR));
    }

    fn note_length(&mut self) {
        if self.now.len() != *self.lengths.last().unwrap_or(&self.durable.len()) {
            self.lengths.push(self.now.len());
        }
    }

    /// Notes what the sectors of this stretch are now, as far as that differs from what was noted last.
    fn note_sectors(&mut self, from: usize, to: usize) {
        for number in from / SECTOR..to.div_ceil(SECTOR) {
            let content = sector(&self.now, number);
            let noted = self
                .sectors
                .get(&number)
                .and_then(|states| states.last().copied());
            if content != noted.unwrap_or_else(|| sector(&self.durable, number)) {
                self.sectors.entry(number).or_default().push(content);
            }
        }
    }

    /// Flushes it. If that fails, chance decides about each sector.
    fn sync(&mut self, fails: bool, chance: &mut Chance) {
        if fails {
            let mut kept = |states: usize| at(chance.below(states as u64));
            self.durable = self.lost(&mut kept).durable;
        } else {
            self.durable.resize(self.now.len(), 0);
            for number in self.sectors.keys() {
                put_sector(&mut self.durable, *number, &sector(&self.now, *number));
            }
        }
        self.lengths.clear();
        self.sectors.clear();
        self.note_length();
    }

    fn lost(&self, pick: &mut dyn FnMut(usize) -> usize) -> Self {
        let mut durable = self.durable.clone();
        if !self.lengths.is_empty()
            && let Some(at) = pick(self.lengths.len() + 1).checked_sub(1)
        {
            durable.resize(self.lengths[at], 0);
        }
        for (number, states) in &self.sectors {
            if let Some(at) = pick(states.len() + 1).checked_sub(1) {
                put_sector(&mut durable, *number, &states[at]);
            }
        }
        Self {
            now: durable.clone(),
            durable,
            stored: self.stored.clone(),
            ..Self::default()
        }
    }
}

impl File {
    pub(super) fn len(&self) -> u64 {
        self.disk.0.lock().state.file(self.id).now.len() as u64
    }

    pub(super) fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut live = self.disk.0.lock();
        live.needs_space()?;
        live.state.file(self.id).resize(at(bytes));
        live.recorded(|| format!("set the length of {} to {bytes}", self.id));
        Ok(())
    }

    pub(super) fn read_exact_at(&self, buffer: &mut [u8], from: u64) -> io::Result<()> {
        match self.read_at(buffer, from) == buffer.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn read_at(&self, buffer: &mut [u8], from: u64) -> usize {
        let mut live = self.disk.0.lock();
        let bytes = &live.state.file(self.id).now;
        let from = at(from).min(bytes.len());
        let some = buffer.len().min(bytes.len() - from);
        buffer[..some].copy_from_slice(&bytes[from..from + some]);
        some
    }

    pub(super) fn write_all_at(&self, bytes: &[u8], from: u64) -> io::Result<()> {
        let mut live = self.disk.0.lock();
        if let Err(error) = live.needs_space() {
            let end = from + live.chance.below(bytes.len() as u64 + 1);
            // As file systems do it: of a sector everything or nothing.
            let some = at((end - end % SECTOR as u64).saturating_sub(from));
            live.state.file(self.id).write(&bytes[..some], at(from));
            live.recorded(|| format!("write a part at {from} of {}", self.id));
            return Err(error);
        }
        live.state.file(self.id).write(bytes, at(from));
        live.recorded(|| format!("write {} bytes at {from} of {}", bytes.len(), self.id));
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        let mut live = self.disk.0.lock();
        let fails = live.sync_fails();
        let Live { state, chance, .. } = &mut *live;
        state.file(self.id).sync(fails, chance);
        live.recorded(|| format!("sync {}", self.id));
        failed_if(fails)
    }

    pub(super) fn is_dense(&self) -> bool {
        let mut live = self.disk.0.lock();
        let content = live.state.file(self.id);
        content.stored.len() >= content.now.len().div_ceil(SECTOR)
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let some = self.read_at(buffer, self.at);
        self.at += some as u64;
        Ok(some)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    pub(super) fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.len().checked_add_signed(by),
        };
        self.at = place.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).expect("files in memory are small")
}

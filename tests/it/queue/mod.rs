//! The calls of the queue one by one: what each does, and what it does when it comes twice, late or to damaged data.

mod attempts;
mod dead_letters;
mod expanding;
mod health;
mod leasing;
mod library;
mod memory;
mod own_events;
mod publishing;
mod resending;
mod settling;
mod storing;
mod upkeep;

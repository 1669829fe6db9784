//! Synthetic figures: unlimited pairs of DensePose labels and pictures of varied people.
//!
//! A rigged body ([`Rig`]) is dressed and painted as a [`Person`], bent into a [`Pose`] (random, calm, or of a
//! [`Motion`]) and drawn through a [`Camera`] by [`render`]; [`degrade`] then does to the labels what real
//! estimators do. Everything follows from the seeds of the generators handed in.

mod backdrop;
mod camera;
mod cloth;
mod degrade;
mod gallery;
mod hair;
mod math;
mod motion;
mod person;
mod pieces;
mod pose;
mod raster;
mod render;
mod report;
mod rig;
mod sheet;

pub use backdrop::{Backdrop, Block};
pub use camera::{Camera, Framing};
pub use degrade::degrade;
pub use gallery::{GALLERY, avatar, write_avatars};
pub use math::{M3, V3};
pub use motion::{Action, Motion};
pub use person::{Beard, Bottom, Colour, Face, HairStyle, Light, Logo, Person, Print, Shoes, Top, hsv};
pub use pose::{Arm, Leg, Pose};
pub use render::{Shot, render};
pub use report::{Figures, report};
pub use rig::Rig;
pub use sheet::{colourize, sheet};

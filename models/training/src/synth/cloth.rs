//! Clothes painted on the body, and how far they stand off.

use super::hair::{hair_volume, paint_head};
use super::math::{V3, scale, smoothstep};
use super::person::{Bottom, Colour, Logo, Person, Print, Top};
use super::rig::Canon;

/// Upper edge of trousers and skirts on the neutral body.
pub(super) const WAIST: f32 = 0.12;

/// How far hair or clothes push a vertex of the neutral body out, metres.
pub(super) fn volume(person: &Person, c: &Canon) -> f32 {
    let p = c.p;
    let (top, bottom) = (&person.top, &person.bottom);
    let arm = (c.arm + c.hand).min(1.0);
    let head = c.head;
    let body = (1.0 - arm) * (1.0 - head);
    // Sleeves flare a little towards their end.
    let sleeve =
        smoothstep(top.sleeve + 0.02, top.sleeve - 0.03, c.along) * (0.8 + 0.5 * c.along.clamp(0.0, 1.0));
    let upper = smoothstep(top.hem - 0.01, top.hem + 0.01, p[2]) * top.volume;
    let lower = if p[2] < WAIST && !bottom.skirt {
        // Wide trousers keep their width below the knee.
        smoothstep(bottom.hem - 0.01, bottom.hem + 0.01, p[2])
            * bottom.volume
            * (0.6 + 0.4 * smoothstep(0.1, -0.3, p[2]))
    } else {
        0.0
    };
    let shoe = smoothstep(person.shoes.top + 0.01, person.shoes.top - 0.01, p[2]) * 0.007;
    let scarf = if person.scarf.is_some() { 0.022 * scarf_share(p) } else { 0.0 };
    body * upper.max(lower).max(shoe).max(scarf)
        + (c.arm.min(1.0 - c.hand)).max(0.0) * sleeve * top.volume
        + head * hair_volume(&person.face, p).max(scarf)
}

/// Colour of a place of the neutral body, unlit.
pub(super) fn paint(person: &Person, c: &Canon) -> Colour {
    let p = c.p;
    if c.hand > 0.5 {
        return person.face.skin;
    }
    if let Some(scarf) = person.scarf.filter(|_| scarf_share(p) > 0.5 && c.arm < 0.5) {
        return scarf;
    }
    if c.head > 0.5 && !(person.top.neckline < 0.0 && p[2] < 0.585 && p[1] > -0.075) {
        return paint_head(&person.face, p);
    }
    if c.arm > 0.5 {
        return if c.along < person.top.sleeve { sleeve(&person.top, c) } else { person.face.skin };
    }
    let shoes = &person.shoes;
    if p[2] < shoes.top {
        return if p[2] < -0.797 { shoes.sole } else { shoes.colour };
    }
    trunk(person, p)
}

fn trunk(person: &Person, p: V3) -> Colour {
    let (top, bottom) = (&person.top, &person.bottom);
    if bottom.bib && bib(p) {
        return bottom.colour;
    }
    if p[2] > top.hem && !bare_neck(top, p) {
        return print(top, p);
    }
    if p[2] < WAIST && p[2] > bottom.hem {
        return legwear(bottom, p);
    }
    person.face.skin
}

fn legwear(bottom: &Bottom, p: V3) -> Colour {
    match (bottom.belt, bottom.stripe) {
        (Some(belt), _) if p[2] > WAIST - 0.04 => belt,
        (_, Some(stripe)) if (p[1] + 0.01).abs() < 0.026 && p[0].abs() > 0.12 => stripe,
        _ => bottom.colour,
    }
}

/// Chest piece and straps of dungarees.
fn bib(p: V3) -> bool {
    let x = p[0].abs();
    let strap = x > 0.055 && x < 0.088 && p[2] > WAIST;
    strap || (p[1] < 0.0 && x < 0.09 && p[2] < 0.34 && p[2] > 0.0) || (p[2] < 0.18 && p[2] > 0.0)
}

fn scarf_share(p: V3) -> f32 {
    let round = smoothstep(0.13, 0.1, p[0].hypot(p[1] + 0.015));
    round * smoothstep(0.525, 0.535, p[2]) * smoothstep(0.598, 0.588, p[2])
}

fn bare_neck(top: &Top, p: V3) -> bool {
    let dip =
        if p[1] < -0.02 { top.neckline.max(0.0) * (1.0 - (p[0] / 0.085).powi(2)).max(0.0) } else { 0.0 };
    top.neckline >= 0.0 && p[0].abs() < 0.1 && p[2] > 0.548 - dip
}

fn sleeve(top: &Top, c: &Canon) -> Colour {
    // Height at which the arm would hang continues the chest's print.
    let height = 0.467 - 0.45 * c.along;
    match top.print {
        Print::Raglan => top.second,
        Print::Stripes(period) => banded(top, height, period),
        Print::Bars(_) | Print::Dots(_) | Print::Checks(_) | Print::Jacket | Print::Plain => top.colour,
        _ => top.colour,
    }
}

fn banded(top: &Top, place: f32, period: f32) -> Colour {
    if (place / period).rem_euclid(1.0) < 0.5 { top.second } else { top.colour }
}

fn print(top: &Top, p: V3) -> Colour {
    let [x, y, z] = p;
    let second = match top.print {
        Print::Plain | Print::Raglan => false,
        Print::Stripes(period) => return banded(top, z, period),
        Print::Bars(period) => ((x / period) + 0.25).rem_euclid(1.0) < 0.5,
        Print::Band => (0.3..0.41).contains(&z),
        Print::Halves => z < 0.27,
        Print::Checks(side) => ((x / side + 0.5).floor() + (z / side).floor()).rem_euclid(2.0) < 0.5,
        Print::Dots(apart) => {
            let row = (z / apart).floor();
            let shift = if row.rem_euclid(2.0) < 0.5 { 0.5 } else { 0.0 };
            let (u, v) = ((x / apart + shift).rem_euclid(1.0) - 0.5, (z / apart).rem_euclid(1.0) - 0.5);
            u.hypot(v) < 0.3
        }
        Print::Logo(logo) => y < 0.0 && in_logo(logo, x / 0.075, (z - 0.35) / 0.075),
        Print::Jacket => return jacket(top, p),
    };
    if second { top.second } else { top.colour }
}

/// An open jacket with darker lapels.
fn jacket(top: &Top, [x, y, z]: V3) -> Colour {
    let open = 0.035 + 0.09 * smoothstep(0.3, 0.55, z);
    match x.abs() - open {
        _ if y > 0.0 => top.colour,
        d if d < 0.0 => top.second,
        d if d < 0.026 => scale(top.colour, 0.72),
        _ => top.colour,
    }
}

fn in_logo(logo: Logo, u: f32, v: f32) -> bool {
    match logo {
        Logo::Disc => u.hypot(v) < 1.0,
        Logo::Ring => (0.5..1.05).contains(&u.hypot(v)),
        Logo::Square => u.abs().max(v.abs()) < 0.85,
        Logo::Diamond => u.abs() + v.abs() < 1.15,
        Logo::Heart => {
            let (a, b) = (u.abs() * 1.15, v * 1.1 - u.abs().sqrt() * 0.55 + 0.05);
            a.hypot(b) < 0.85
        }
        Logo::Star => {
            let angle = u.atan2(v).rem_euclid(std::f32::consts::TAU / 5.0) - std::f32::consts::PI / 5.0;
            u.hypot(v) * (1.0 + 0.9 * (1.0 - angle.abs() / (std::f32::consts::PI / 5.0))) < 1.2
        }
    }
}

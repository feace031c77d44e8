"""The classes of published sets for semantic segmentation, and which values of their masks they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from patchcut_export.measuring.datasets.examples import VOID, Classes, plain_name

_VOC = (
    "background,aeroplane,bicycle,bird,boat,bottle,bus,car,cat,chair,cow,diningtable,dog,horse,motorbike,"
    "person,pottedplant,sheep,sofa,train,tvmonitor"
)

# COCO's things by their value in COCO-Stuff's maps; the empty ones are of things that were never drawn.
_COCO_THINGS = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,,stop sign,"
    "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,,backpack,umbrella,,,"
    "handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,"
    "surfboard,tennis racket,bottle,,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,"
    "broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,,dining table,,,toilet,,tv,laptop,"
    "mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,,book,clock,vase,scissors,"
    "teddy bear,hair drier,toothbrush"
)
_COCO_STUFF = range(91, 182)
_COCO_STUFF_NAMES = (
    "banner,blanket,branch,bridge,building-other,bush,cabinet,cage,cardboard,carpet,ceiling-other,"
    "ceiling-tile,cloth,clothes,clouds,counter,cupboard,curtain,desk-stuff,dirt,door-stuff,fence,"
    "floor-marble,floor-other,floor-stone,floor-tile,floor-wood,flower,fog,food-other,fruit,furniture-other,"
    "grass,gravel,ground-other,hill,house,leaves,light,mat,metal,mirror-stuff,moss,mountain,mud,napkin,net,"
    "paper,pavement,pillow,plant-other,plastic,platform,playingfield,railing,railroad,river,road,rock,roof,"
    "rug,salad,sand,sea,shelf,sky-other,skyscraper,snow,solid-other,stairs,stone,straw,structural-other,"
    "table,tent,textile-other,towel,tree,vegetable,wall-brick,wall-concrete,wall-other,wall-panel,"
    "wall-stone,wall-tile,wall-wood,water-other,waterdrops,window-blind,window-other,wood"
)

# The 27 groups that COCO-Stuff's own hierarchy has above its labels, in the order of IIC and PiCIE, by their
# values in its maps: 12 of things, 15 of stuff. Food and furniture are among both.
_COCO_27: Mapping[str, Sequence[int]] = {
    "electronic": range(71, 77),
    "appliance": range(77, 83),
    "food": range(51, 61),
    "furniture": range(61, 71),
    "indoor": range(83, 91),
    "kitchen": range(43, 51),
    "accessory": range(25, 33),
    "animal": range(15, 25),
    "outdoor": range(9, 15),
    "person": range(1),
    "sports": range(33, 43),
    "vehicle": range(1, 9),
    "ceiling": (101, 102),
    "floor": (100, 113, 114, 115, 116, 117),
    "food-stuff": (120, 121, 152, 169),
    "furniture-stuff": (97, 106, 107, 109, 111, 122, 129, 132, 155, 160, 164),
    "rawmaterial": (99, 131, 138, 142),
    "textile": (91, 92, 103, 104, 108, 130, 136, 140, 151, 166, 167),
    "wall": range(170, 177),
    "window": (179, 180),
    "building": (94, 95, 127, 150, 157, 165),
    "ground": (110, 124, 125, 135, 139, 143, 144, 146, 148, 153, 158),
    "plant": (93, 96, 118, 123, 128, 133, 141, 162, 168),
    "sky": (105, 156),
    "solid": (126, 134, 149, 159, 161, 181),
    "structural": (98, 112, 137, 145, 163),
    "water": (119, 147, 154, 177, 178),
}

_CITYSCAPES = (
    "road,sidewalk,parking,rail track,building,wall,fence,guard rail,bridge,tunnel,pole,polegroup,"
    "traffic light,traffic sign,vegetation,terrain,sky,person,rider,car,truck,bus,caravan,trailer,train,"
    "motorcycle,bicycle"
)
_FIRST_OF_CITYSCAPES = 7  # the labels before it are none of the scene: the ego vehicle, borders, unlabelled
# The 19 classes of its benchmark, in the order of the "train ids".
_CITYSCAPES_19 = (
    "road,sidewalk,building,wall,fence,pole,traffic light,traffic sign,vegetation,terrain,sky,person,rider,"
    "car,truck,bus,train,motorcycle,bicycle"
)

# The 59 classes of PASCAL-Context of which there are enough pixels, after 0, background.
_CONTEXT = (
    "aeroplane,bag,bed,bedclothes,bench,bicycle,bird,boat,book,bottle,building,bus,cabinet,car,cat,ceiling,"
    "chair,cloth,computer,cow,cup,curtain,dog,door,fence,floor,flower,food,grass,ground,horse,keyboard,light,"
    "motorbike,mountain,mouse,person,plate,platform,pottedplant,road,rock,sheep,shelves,sidewalk,sign,sky,"
    "snow,sofa,table,track,train,tree,truck,tvmonitor,wall,water,window,wood"
)

# What people call these classes in words of their own, and so do the concepts that they make.
_OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "aeroplane": ("airplane", "plane"),
    "airplane": ("aeroplane", "plane"),
    "bicycle": ("bike",),
    "motorbike": ("motorcycle",),
    "motorcycle": ("motorbike",),
    "diningtable": ("table",),
    "sofa": ("couch",),
    "couch": ("sofa",),
    "tvmonitor": ("tv", "television", "monitor"),
    "tv": ("television", "tv monitor"),
    "pottedplant": ("plant",),
    "person": ("people", "human", "pedestrian"),
    "cell phone": ("mobile phone", "telephone"),
    "vegetation": ("tree", "bush"),
}


def voc_classes() -> Classes:
    """20 classes of objects and background; borders are void."""
    names = tuple(_VOC.split(","))
    values = {**identity(len(names)), VOID: VOID}
    return Classes(names, values, has_background=True, by_iou=True, other_names=_OTHER_NAMES)


def voc_object_classes() -> Classes:
    """The 20 classes of objects alone: what is background is not measured."""
    names = tuple(_VOC.split(","))[1:]
    values = {0: VOID, VOID: VOID} | {number: number - 1 for number in range(1, len(names) + 1)}
    return Classes(names, values, has_background=False, other_names=_OTHER_NAMES)


def context_classes(*, background: bool) -> Classes:
    """59 classes of PASCAL-Context, and background; without it, what belongs to none is not measured."""
    names = tuple(_CONTEXT.split(","))
    first = 0 if background else 1
    values = {number: number - first for number in range(first, len(names) + 1)}
    all_names = ("background", *names) if background else names
    known = {0: VOID, VOID: VOID} | values
    return Classes(all_names, known, has_background=background, other_names=_OTHER_NAMES)


def coco_stuff_all_classes() -> Classes:
    """80 classes of things and 91 of stuff; what is unlabelled is void."""
    drawn = [(value, name) for value, name in enumerate(_COCO_THINGS.split(",")) if name]
    drawn += zip(_COCO_STUFF, _COCO_STUFF_NAMES.split(","), strict=True)
    names = tuple(name for _, name in drawn)
    own = {plain_name(name) for name in names}
    others = dict(_OTHER_NAMES)
    for name in names:  # such as "sky" of "sky-other", but not "table" of "dining table"
        short = name.removesuffix("-other").removesuffix("-stuff")
        if short != name and plain_name(short) not in own:
            others[name] = (short,)
    values = {value: number for number, (value, _) in enumerate(drawn)}
    return Classes(names, values | {VOID: VOID}, has_background=False, other_names=others)


def coco_object_classes() -> Classes:
    """80 classes of things and background, which is stuff; what is unlabelled is void."""
    drawn = [(value, name) for value, name in enumerate(_COCO_THINGS.split(",")) if name]
    values = {value: number for number, (value, _) in enumerate(drawn, 1)}
    values |= dict.fromkeys(_COCO_STUFF, 0) | {VOID: VOID}
    return Classes(("background", *(name for _, name in drawn)), values, has_background=True)


def coco_stuff_classes() -> Classes:
    """The 27 groups of COCO-Stuff; what is unlabelled is void."""
    values = {value: number for number, group in enumerate(_COCO_27.values()) for value in group}
    return Classes(tuple(_COCO_27), values | {VOID: VOID}, has_background=False)


def cityscapes_classes() -> Classes:
    """27 of the labels of Cityscapes, those from road on; the rest is void."""
    first, names = _FIRST_OF_CITYSCAPES, tuple(_CITYSCAPES.split(","))
    values = dict.fromkeys(range(first), VOID) | {first + i: i for i in range(len(names))}
    return Classes(names, values | {VOID: VOID}, has_background=False)


def cityscapes_19_classes() -> Classes:
    """The 19 labels of its benchmark; the rest is void."""
    names, first = tuple(_CITYSCAPES_19.split(",")), _FIRST_OF_CITYSCAPES
    labels = {name: first + i for i, name in enumerate(_CITYSCAPES.split(","))}
    values = dict.fromkeys(range(first + len(labels)), VOID) | {
        labels[name]: number for number, name in enumerate(names)
    }
    return Classes(names, values | {VOID: VOID}, has_background=False, other_names=_OTHER_NAMES)


def kitti_step_classes() -> Classes:
    """The same 19 by their train ids."""
    names = tuple(_CITYSCAPES_19.split(","))
    values = {**identity(len(names)), VOID: VOID}
    return Classes(names, values, has_background=False, other_names=_OTHER_NAMES)


def identity(count: int) -> dict[int, int]:
    """Values that are the classes themselves."""
    return {value: value for value in range(count)}

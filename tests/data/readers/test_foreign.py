import pytest

from tagmask.data.readers import read_dataset
from tagmask.errors import TagmaskError
from tests.data.trees import write_image

# The files of real exports: those of Datumaro 1.13's writers, of VoTT, Roboflow, Supervisely and VIA.
LAYOUTS = {
    "COCO panoptic": ("coco_panoptic", "annotations/panoptic_val2017.json annotations/panoptic_val2017/a.png"),
    "COCO stuff": ("coco_stuff", "annotations/stuff_train.json images/train/a.jpg"),
    "COCO keypoints": ("coco_person_keypoints", "annotations/person_keypoints_val2017.json val2017/a.jpg"),
    "COCO captions": ("captions hold no tags", "annotations/captions_val2017.json val2017/a.jpg"),
    "Open Images": ("open_images", "annotations/class-descriptions.csv images/train/a.jpg"),
    "VoTT (JSON)": ("vott_json", "train-export.json a.jpg"),
    "VoTT (CSV)": ("vott_csv", "train-export.csv a.jpg"),
    "Darknet YOLO": ("yolo", "obj.data obj.names obj_train_data/a.jpg obj_train_data/a.txt"),
    "LabelMe 3.0 (XML)": ("label_me", "Annotations/train/a.xml Images/train/a.jpg Masks/train/a_mask_0.png"),
    "CamVid": ("camvid", "label_colors.txt train.txt train/a.png trainannot/a.png val/b.png valannot/b.png"),
    "KITTI segmentation": ("kitti_segmentation", "label_colors.txt train/image_2/a.png train/semantic/a.png"),
    "Cityscapes": ("cityscapes", "gtFine/train/x/a.png leftImg8bit/train/x/a.png"),
    "Datumaro": ("datumaro", "annotations/train.json images/train/a.jpg"),
    "Roboflow COCO": ("roboflow_coco", "train/_annotations.coco.json train/a.jpg valid/_annotations.coco.json"),
    "Roboflow semantic segmentation": ("COCO Segmentation", "train/_classes.csv train/a.jpg train/a_mask.png"),
    "Roboflow multi-label": ("name the _classes.csv", "train/_classes.csv train/a.jpg valid/_classes.csv"),
    "Supervisely": ("as COCO or Pascal VOC", "meta.json ds/ann/a.jpg.json ds/img/a.jpg"),
    "VIA": ("as *COCO format*", "via_project_1Jan2024.json a.jpg"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_bad_input_layouts_of_other_tools_are_named_with_the_way_out(tmp_path, name):
    mend, files = LAYOUTS[name]
    for file in files.split():
        path = tmp_path / "set" / file
        if path.suffix in (".jpg", ".png"):
            write_image(path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
    with pytest.raises(TagmaskError) as raised:
        read_dataset(tmp_path / "set")
    assert f"set: is {name}, which tagmask does not read; " in str(raised.value)
    command = f"datum convert -i '{tmp_path / 'set'}' -if {mend} -f coco_instances -o coco -- --save-media"
    assert (mend if " " in mend else command) in str(raised.value)

import pytest

from tagmask.data.readers import read_dataset
from tagmask.errors import TagmaskError
from tests.data.trees import write_image, write_table

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
    "Roboflow CSV": ("as *YOLOv8*", "train/_annotations.csv train/a.jpg"),
    "Roboflow Pascal VOC": ("as *YOLOv8*", "README.roboflow.txt train/a.xml train/a.jpg"),
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
    to = "-f coco_instances -o coco -- --save-media --segmentation-mode mask"
    command = f"datum convert -i '{tmp_path / 'set'}' -if {mend} {to}"
    assert (mend if " " in mend else command) in str(raised.value)


@pytest.mark.parametrize(
    ("header", "mend"),
    [
        ("annotation_id,annotator,choice,created_at,id,image,lead_time,updated_at", "Label Studio's CSV.*as \\*JSON"),
        ("filename,file_size,region_count,region_shape_attributes,region_attributes", "VIA's CSV.*as \\*COCO format"),
    ],
)
def test_bad_input_tables_of_other_tools_are_named_with_the_way_out(tmp_path, header, mend):
    write_table(tmp_path, f"{header}\n", name="export.csv")
    with pytest.raises(TagmaskError, match=f"export.csv: is {mend}"):
        read_dataset(tmp_path / "export.csv")


@pytest.mark.parametrize(
    ("suffix", "label", "moved"),
    [
        (".txt", "0 0.5 0.5 0.2 0.3\n", ("images", "labels")),
        (".xml", "<annotation><object><name>gnu</name></object></annotation>", ("JPEGImages", "Annotations")),
    ],
)
def test_bad_input_labels_beside_their_images_are_told_where_to_lie(tmp_path, suffix, label, moved):
    write_image(tmp_path / "a.jpg")
    (tmp_path / f"a{suffix}").write_text(label)
    with pytest.raises(TagmaskError, match=f"a {suffix} file.*{moved[0]}/, the .* to {moved[1]}/.*classes"):
        read_dataset(tmp_path)
    for folder, name in zip(moved, ("a.jpg", f"a{suffix}"), strict=True):
        (tmp_path / folder).mkdir()
        (tmp_path / name).rename(tmp_path / folder / name)
    (tmp_path / "classes.txt").write_text("gnu\n")
    assert [record.tags for record in read_dataset(tmp_path).records] == [(0,)]


@pytest.mark.parametrize(
    ("name", "mend"), [("tags.xlsx", "spreadsheet tags.xlsx; save it"), ("a.tar.gz", "archive a.tar.gz; unpack it")]
)
def test_bad_input_spreadsheets_and_archives_beside_images(tmp_path, name, mend):
    write_image(tmp_path / "images" / "a.jpg")
    (tmp_path / name).touch()
    with pytest.raises(TagmaskError, match=mend):
        read_dataset(tmp_path)

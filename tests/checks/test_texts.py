"""When a text is an answer of some sentences, in any script."""

import pytest

from precode_lib.checks import exercise, open_question


@exercise
def essay(text, generator):
    return open_question(text, mentions="noise.")


SENTENCES = {
    "Chinese": "每一行返回两张照片的加权平均值，权重是它们各自的误差除以误差之和；"
    "不同行的误差不同，所以混合比例也不同。",
    "Japanese": "各行は二枚の写真の加重平均を返す。重みは誤差の比であり、行ごとに"
    "異なる。片方の誤差が零なら、もう一方だけが見える。",
    "Thai": "แต่ละแถวให้ค่าเฉลี่ยถ่วงน้ำหนักของภาพทั้งสอง "
    "โดยน้ำหนักคือค่าความผิดพลาดของแต่ละภาพหารด้วยผลรวม "
    "ถ้าภาพหนึ่งมีค่าเป็นศูนย์ แถวนั้นจะแสดงอีกภาพเพียงภาพเดียว",
    "Khmer": "ជួរនីមួយៗផ្តល់មធ្យមភាគមានទម្ងន់នៃរូបថតទាំងពីរ "
    "ដោយទម្ងន់គឺជាកំហុសរបស់រូបនីមួយៗចែកនឹងផលបូក "
    "បើរូបមួយមានកំហុសសូន្យ ជួរនោះបង្ហាញតែរូបមួយទៀតប៉ុណ្ណោះ",
    "Lao": "ແຕ່ລະແຖວໃຫ້ຄ່າສະເລ່ຍຖ່ວງນ້ຳໜັກຂອງຮູບພາບທັງສອງ "
    "ໂດຍນ້ຳໜັກແມ່ນຄ່າຜິດພາດຂອງແຕ່ລະຮູບຫານດ້ວຍຜົນລວມ "
    "ຖ້າຮູບໜຶ່ງມີຄ່າເປັນສູນ ແຖວນັ້ນຈະສະແດງອີກຮູບດຽວ",
    "Persian": " ".join(f"واژه\u200cی{i}" for i in range(25)),
    "Korean": " ".join(f"단어{i}" for i in range(25)),
    "mixed": "每一行返回两张照片的加权平均值 because the gradient is a mean, 权重是它们"
    "各自的误差除以误差之和，不同行的误差不同。",
}


@pytest.mark.parametrize("script", SENTENCES)
def test_an_answer_of_some_sentences_is_one_in_any_script(script):
    assert essay.judge(SENTENCES[script]).is_right


def test_breaks_between_words_that_nobody_sees_change_nothing():
    for script in ("Thai", "Khmer"):
        assert essay.judge("\u200b".join(SENTENCES[script])).is_right


@pytest.mark.parametrize(
    "text",
    [
        *("两张照片的混合。", "好的吧" * 40, "啊" * 200, "好。" * 100, "，。" * 200),
        *("ภาพผสม", "กขค" * 60, "mixture" * 60, "no " * 60),
    ],
)
def test_a_few_words_said_often_are_no_answer_in_any_script(text):
    verdict = essay.judge(text)
    assert verdict.state == "wrong"
    assert "words are few" in verdict.message

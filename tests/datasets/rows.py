"""Rows of the original files, read by hand, and folders made of them.

Those of Adult and Bank stand in the files (CC BY 4.0, see ATTRIBUTION.md); those of COMPAS, which
is about real people, are invented.
"""

from __future__ import annotations

from pathlib import Path

from captum_robust.datasets import TabularDataset

# Rows of the original files, the features that a reader of the mapping finds in them, the target.
ADULT = {
    0: (
        "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, "
        "Male, 2174, 0, 40, United-States, <=50K",
        {
            "age>=30",
            "workclass=Government",
            "education=Bachelors",
            "marital=Single",
            "occupation=White-Collar",
            "race=White",
            "gender=Male",
        },
        0,
    ),
    4: (
        "28, Private, 338409, Bachelors, 13, Married-civ-spouse, Prof-specialty, Wife, Black, "
        "Female, 0, 0, 40, Cuba, <=50K",
        {
            "workclass=Private",
            "education=Bachelors",
            "marital=Married",
            "occupation=Professional",
        },
        0,
    ),
    27: (
        "54, ?, 180211, Some-college, 10, Married-civ-spouse, ?, Husband, Asian-Pac-Islander, "
        "Male, 0, 0, 60, South, >50K",
        {
            "age>=30",
            "age>=45",
            "hours-per-week>40",
            "workclass=Other/Unknown",
            "education=Some-college",
            "marital=Married",
            "occupation=Other/Unknown",
            "gender=Male",
        },
        1,
    ),
    160: (
        "68, ?, 38317, 1st-4th, 2, Divorced, ?, Not-in-family, White, Female, 0, 0, 20, "
        "United-States, <=50K",
        {
            "age>=30",
            "age>=45",
            "workclass=Other/Unknown",
            "education=School",
            "marital=Divorced",
            "occupation=Other/Unknown",
            "race=White",
        },
        0,
    ),
    # The first and the last row of adult.test, whose labels end in a full stop.
    32561: (
        "25, Private, 226802, 11th, 7, Never-married, Machine-op-inspct, Own-child, Black, Male, "
        "0, 0, 40, United-States, <=50K.",
        {
            "workclass=Private",
            "education=School",
            "marital=Single",
            "occupation=Blue-Collar",
            "gender=Male",
        },
        0,
    ),
    48841: (
        "35, Self-emp-inc, 182148, Bachelors, 13, Married-civ-spouse, Exec-managerial, Husband, "
        "White, Male, 0, 0, 60, United-States, >50K.",
        {
            "age>=30",
            "hours-per-week>40",
            "workclass=Self-Employed",
            "education=Bachelors",
            "marital=Married",
            "occupation=White-Collar",
            "race=White",
            "gender=Male",
        },
        1,
    ),
}

BANK_HEADER = (
    '"age";"job";"marital";"education";"default";"balance";"housing";"loan";"contact";"day";'
    '"month";"duration";"campaign";"pdays";"previous";"poutcome";"y"'
)
BANK = {
    0: (
        '58;"management";"married";"tertiary";"no";2143;"yes";"no";"unknown";5;"may";261;1;-1;0;'
        '"unknown";"no"',
        {
            "marital=married",
            "education=tertiary",
            "contact=unknown",
            "poutcome=unknown",
            "housing=yes",
            "duration>180",
        },
        0,
    ),
    1: (
        '44;"technician";"single";"secondary";"no";29;"yes";"no";"unknown";5;"may";151;1;-1;0;'
        '"unknown";"no"',
        {
            "marital=single",
            "education=secondary",
            "contact=unknown",
            "poutcome=unknown",
            "housing=yes",
        },
        0,
    ),
    24080: (
        '56;"technician";"married";"secondary";"no";589;"yes";"no";"unknown";23;"oct";518;1;147;2;'
        '"success";"yes"',
        {
            "marital=married",
            "education=secondary",
            "contact=unknown",
            "poutcome=success",
            "housing=yes",
            "duration>180",
        },
        1,
    ),
    45210: (
        '37;"entrepreneur";"married";"secondary";"no";2971;"no";"no";"cellular";17;"nov";361;2;188;'
        '11;"other";"no"',
        {
            "marital=married",
            "education=secondary",
            "contact=cellular",
            "poutcome=other",
            "duration>180",
        },
        0,
    ),
}


def adult_folder(folder: Path, rows: list[str]) -> Path:
    """A folder of Adult files, with the comment and the blank last line of the originals."""
    cut = len(rows) // 2
    (folder / "adult.data").write_text("\n".join(rows[:cut]) + "\n\n")
    (folder / "adult.test").write_text("|1x3 Cross validator\n" + "\n".join(rows[cut:]) + "\n\n")
    return folder


def bank_folder(folder: Path, rows: list[str], header: str = BANK_HEADER) -> Path:
    (folder / "bank-full.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def on(dataset: TabularDataset, row: int) -> set[str]:
    """The names of the features that are 1 in a row."""
    return {dataset.feature_names[i] for i in dataset.inputs[row].nonzero().flatten().tolist()}


# All 53 columns, of which decile_score and priors_count are there twice.
COMPAS_HEADER = (
    "id,name,first,last,compas_screening_date,sex,dob,age,age_cat,race,juv_fel_count,decile_score,"
    "juv_misd_count,juv_other_count,priors_count,days_b_screening_arrest,c_jail_in,c_jail_out,"
    "c_case_number,c_offense_date,c_arrest_date,c_days_from_compas,c_charge_degree,c_charge_desc,"
    "is_recid,r_case_number,r_charge_degree,r_days_from_arrest,r_offense_date,r_charge_desc,"
    "r_jail_in,r_jail_out,violent_recid,is_violent_recid,vr_case_number,vr_charge_degree,"
    "vr_offense_date,vr_charge_desc,type_of_assessment,decile_score,score_text,screening_date,"
    "v_type_of_assessment,v_decile_score,v_score_text,v_screening_date,in_custody,out_custody,"
    "priors_count,start,end,event,two_year_recid"
)
NOBODY = {
    "id": "1",
    "sex": "Female",
    "age": "60",
    "race": "Other",
    "juv_fel_count": "0",
    "juv_misd_count": "0",
    "juv_other_count": "0",
    "priors_count": "0",
    "days_b_screening_arrest": "-1",
    "c_charge_degree": "M",
    "is_recid": "0",
    "score_text": "Low",
    "two_year_recid": "0",
}


def compas_row(header: str = COMPAS_HEADER, **changes: str) -> str:
    """An invented row: a woman of 60 of another race, with no record, scored Low."""
    person = NOBODY | changes
    return ",".join(person.get(name, "") for name in header.split(","))


def compas_folder(folder: Path, rows: list[str], header: str = COMPAS_HEADER) -> Path:
    (folder / "compas-scores-two-years.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder

"""Creates the PDF files of the handbook from the texts below: `python examples/make_pdfs.py`. Equal texts, equal bytes.

A text is a title, a line of small print, and pages divided by a line `---`. `# ` begins a heading, `- ` a list item,
`| ` a table row (the first of a table is its head); other lines up to an empty one are a paragraph.
"""

from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path

from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, PageBreak, Paragraph, SimpleDocTemplate, Table

HANDBOOK = Path(__file__).parent / "handbook"
STYLES = getSampleStyleSheet()
GRID = [
    ("GRID", (0, 0), (-1, -1), 0.25, colors.grey),
    ("BACKGROUND", (0, 0), (-1, 0), colors.whitesmoke),
    ("FONTNAME", (0, 0), (-1, 0), "Helvetica-Bold"),
    ("FONTSIZE", (0, 0), (-1, -1), 9),
]


def kind(line: str) -> str:
    return line[:2] if line[:2] in ("# ", "- ", "| ") else "text" if line else ""


def flowables(page: str) -> Iterator[Flowable]:
    for mark, group in groupby(page.strip().splitlines(), key=kind):
        lines = [line.removeprefix(mark) for line in group]
        if mark == "# ":
            yield from (Paragraph(line, STYLES["Heading2"]) for line in lines)
        elif mark == "- ":
            yield from (Paragraph(line, STYLES["BodyText"], bulletText="\u2022") for line in lines)
        elif mark == "| ":
            rows = [[cell.strip() for cell in line.split("|")] for line in lines]
            yield Table(rows, style=GRID, hAlign="LEFT", spaceBefore=6, spaceAfter=6)
        elif mark:
            yield Paragraph(" ".join(lines), STYLES["BodyText"])


def footer(canvas: Canvas, document: SimpleDocTemplate, text: str) -> None:
    canvas.setFont("Helvetica", 8)
    canvas.drawString(25 * mm, 12 * mm, text)
    canvas.drawRightString(A4[0] - 25 * mm, 12 * mm, f"Page {document.page}")


def make(name: str, text: str) -> None:
    title, small, body = text.strip().split("\n", 2)
    story: list[Flowable] = [Paragraph(title, STYLES["Title"]), Paragraph(small, STYLES["Italic"])]
    for page in body.split("\n---\n"):
        story += [*flowables(page), PageBreak()]
    edges = {side: 25 * mm for side in ("leftMargin", "rightMargin", "topMargin", "bottomMargin")}
    document = SimpleDocTemplate(
        str(HANDBOOK / name), pagesize=A4, title=title, author="Millbrook Weir Cooperative", invariant=1, **edges
    )
    draw = partial(footer, text=title)
    document.build(story[:-1], onFirstPage=draw, onLaterPages=draw)


EMERGENCY_PLAN = """
Emergency plan for Millbrook Weir
Agreed with the parish, the fire brigade and the river authority. Version 6 of 15 January 2025.

# 1. What this plan is for

This plan says who does what when the river rises beyond its usual levels, when the weir is damaged, or when oil gets
into the water. It holds from the first warning until the chair of the cooperative declares the emergency ended. The
incident leader is the weir keeper; when he cannot be reached, the duty engineer leads.

# 2. The three stages of a flood

The stage follows the staff gauge at the footbridge. It is read every half hour from stage yellow on, and every ten
minutes from stage red on.

| Stage | Gauge | Who is called | First measure
| Yellow | 1.80 m | weir keeper, duty engineer | clear the rack, stop Bertha
| Orange | 2.30 m | fire brigade, parish | close the footbridge and the riverside path
| Red | 2.70 m | everyone on the list | sound the siren, clear Tanner's Row

At stage red the siren on the roof gives three blasts of ten seconds each, with pauses of five seconds. One long blast
of a minute means that the danger is over.

# 3. Before the water comes

- The sandbags are stacked behind the sawmill: 400 filled, 600 empty.
- The stop boards for the door of the electrical room hang on the wall opposite.
- The boat stays on its trailer and is never launched above the weir.
---
# 4. If the weir breaks

A break of the weir is unlikely, for it stands on rock. If it is feared nevertheless, nobody waits for certainty. The
incident leader rings the fire brigade first, then the river authority, then the mayor of Lower Millbrook.

After a break of the weir, the flood wave reaches the first houses of Lower Millbrook in 22 minutes. The wave reaches
the railway bridge after 41 minutes, and by then it is less than a metre high. The first wave is followed by a second,
lower one, when the mill pond empties.

Seventeen houses in Tanner's Row have to be cleared, with 46 inhabitants. Five of the inhabitants cannot walk without
help; their names are in the sealed envelope in the gatehouse, and the fire brigade has a copy.

# 5. Where people go

The assembly point is the cider barn on the hill above the orchard. It has heating, water and room for 120 people. The
parish hall is not used, since it stands lower than the church. Pets are welcome in the barn, horses go to the upper
meadow. The shop opens its store for the helpers against a signature.

| Place | Height above the river | Room for
| Cider barn | 31 m | 120 people
| School | 19 m | 200 people, without beds
| Chapel | 14 m | 60 people
---
# 6. Oil on the water

Oil is stopped with the floating boom. The oil boom lies in the blue box beside the gatehouse and is 28 metres long, so
that it spans the headrace at its narrowest place with some metres to spare. Two people can lay it in a quarter of an
hour. Shut the intake gates first, or the boom is drawn under.

Absorbent mats are in the same box. Each of the mats takes up four litres. Used mats go into the red barrel and are
fetched by the waste firm, and must not be burned.

Every loss of more than five litres of oil is reported to the river authority within two hours, even when nothing has
reached the water.

# 7. Fire

The power house has two exits. Fires in the electrical room are fought with carbon dioxide only, and only by the fire
brigade. The extinguishing water basin behind the sawmill holds 50 cubic metres. The key for the brigade is in the tube
beside the main door, under a lid with the number of the house.

# 8. Exercises

An exercise takes place every year in October. The exercise of 2024 took 34 minutes from the alarm until the last house
was reported empty; the aim is 25 minutes. It was delayed because two street names in the list were out of date.
---
# 9. People and numbers

The numbers are those of the internal exchange; from outside, dial the number of the parish before them.

| Part | Person | Extension
| Incident leader | Tomasz Brandt | 21
| Duty engineer | by rota | 24
| Fire brigade, Millbrook | Yusuf Carrow | 40
| Doctor | Dr Petra Nwosu | 52
| School, as a shelter | Hannah Birch | 63
| Radio amateurs | Leif Anders | 77

If the telephone fails, the radio of the fire brigade is used on channel 14. The radio amateurs set up a second link
from the chapel tower and need 40 minutes for it.

# 10. Afterwards

The electrical room is not entered until an electrician has measured that it is safe. Cellars in the village are pumped
out only when the river has fallen below the cellar floors, for otherwise the walls may give way. The weir keeper writes
a report within a week, with all times, and hangs it in the gatehouse for everyone to read. Helpers are invited to
supper; the cooperative pays for the soup.
"""

INSURANCE = """
Insurance policy MW-77-40381
Fennmark Mutual, Oldhaven. Policyholder: Millbrook Weir Cooperative. In force from 1 January 2025.

# Section 1. What is insured

The policy covers the buildings, the machines and the electrical equipment of the power house, the weir itself and the
fish ladder against sudden damage. It follows the general conditions of the insurer of 2022, as far as nothing else is
written here.

| Item | Sum insured
| Machines and generators | 1,860,000 euros
| Weir, headrace and tailrace | 2,400,000 euros
| Buildings | 720,000 euros
| Fish ladder | 310,000 euros
| Tools and stores | 45,000 euros

The sum insured is adjusted each January by the index of building costs. If the sum insured is more than ten percent
too low at the time of a loss, the payment is reduced in the same proportion.

# Section 2. Premium

The yearly premium is 11,940 euros and is due on 15 January. It may be paid in two halves for an extra charge of two
percent. After three years without a claim the premium falls by eight percent, and after five years by twelve.

The insurer may send an engineer once a year. The engineer's advice is binding where it concerns locks, smoke detectors
or the testing of the flood gate.
---
# Section 3. Deductibles

The deductible is the part of each loss that the policyholder bears. For damage by flood the deductible is 15,000 euros,
for a machinery breakdown it is 4,500 euros, and for theft it is 1,000 euros. When one event causes losses of several
kinds, only the highest deductible is taken off.

# Section 4. Loss of income

If the plant stands still after an insured damage, the insurer replaces the lost income. Payment for lost income begins
after a waiting time of 14 days and ends after nine months at the latest. The lost income is reckoned from the average
production of the same months in the five years before.

No lost income is paid for Bertha, which the parties regard as a monument. If a spare part has to be made because its
maker no longer exists, the nine months may be extended by three upon request.

# Section 5. Liability

Damage to others is covered up to 5,000,000 euros for each event, and twice that sum in a year. This includes damage to
boats, to fish farms and to the cellars of neighbours, but not damage between members of the same household.
---
# Section 6. What is not insured

- Wear, rust, cavitation and other damage that comes slowly.
- Damage by ice that could have been avoided by opening the flood gate.
- Damage from work that was done without the permit demanded by the safety rules.
- War, nuclear energy, and fines of any kind.
- Batteries of more than 100 kilowatt-hours, unless they are named in an endorsement.

Cavitation on the runner of Agnes is covered in spite of the first exclusion, if it is found within two years after an
overhaul.

# Section 7. Duties after a loss

A loss has to be reported to the insurer within 72 hours after it was discovered. Photographs are taken before anything
is moved, as far as safety permits. Parts that were replaced are kept for three months, so that the insurer's engineer
can examine them. The claims desk in Oldhaven is open every day of the week; its reference for Millbrook is the number
of the policy.

If the policyholder breaks one of these duties with intent, the insurer is free. If by gross carelessness, the payment
may be reduced by up to one half.

# Section 8. Payment

The insurer pays within 30 days after its liability is established. An advance of up to 60 percent can be asked for when
the amount is not yet known after four weeks.
---
# Section 9. Length and notice

The policy runs for three years and is then prolonged from year to year. Either side can end the policy with three
months' notice to the end of the insurance year. After a loss, both sides may end the policy within one month from the
payment.

# Section 10. Disputes

When the parties disagree about the amount of a loss, each names an expert, and the two experts name an umpire before
they begin. The umpire decides within the limits of the two opinions. Each side pays its own expert, and the cost of the
umpire is shared. The place of jurisdiction is Oldhaven.

# Endorsement A

The footbridge is included in the buildings with a sum of 85,000 euros, since the repair of its railing after the flood
of 2023.

# Endorsement B

The two electric cars of the cooperative are not part of this policy. They are insured with the Valley Motor Club.

Signed for the insurer: Ingrid Falk. Signed for the policyholder: Oluwaseun Marsh, Piet Lindqvist.
"""

TENDER = """
Tender: new trash rack for unit 1
Millbrook Weir Cooperative invites bids. Reference MWC-2025-03. Published 7 April 2025.

# 1. The work

The cooperative buys a trash rack for the intake of the Kaplan turbine, with everything that belongs to it: the bars,
the frame, the sill beam, the rake carriage and its control. The old rack of 1994 is taken out and scrapped by the
contractor. The machine can stand still for at most 21 days.

# 2. Technical demands

The clear spacing between the bars of the new trash rack is 12 millimetres, so that eels cannot pass. The bars are made
of stainless steel 1.4404 and are shaped like a drop. The rack is 5.8 metres wide and 4.1 metres high and leans back at
an angle of 27 degrees to the horizontal.

| Quantity | Demand
| Head loss, clean rack | at most 4 cm at 6.5 m³/s
| Load on the blocked rack | 1.6 m of water
| Speed of the rake | 0.2 to 0.4 m/s
| Noise at 10 m | at most 55 dB
| Paint of the frame | none, hot-dip galvanised

The rake has to lift a trunk of 350 kilograms. It is driven by chains or by a hydraulic arm; ropes are not accepted. A
bypass of 25 centimetres width at the top end of the rack leads the fish to the lure pipe.
---
# 3. How to bid

Bids must reach the office by noon on 30 May 2025, on paper and in a sealed envelope, or as a signed file. Bids that
come later are sent back unopened. A bidder may offer a variant if the main offer is complete. The language of the bid
is English or German.

A visit to the site is compulsory. The site visit takes place on 6 May 2025 at 10 in the morning and starts at the
gatehouse; boots are needed. Questions are answered in writing until 16 May, and every answer goes to all who took part
in the visit.

# 4. Security

Each bidder adds a bid bond of 8,000 euros, valid for 120 days. The winner replaces the bid bond by a performance bond
of ten percent of the price. Both may be given by a bank or by an insurer in the European Economic Area.

# 5. How bids are judged

| Criterion | Weight
| Price | 45 percent
| Technical quality | 30 percent
| Time of delivery | 15 percent
| Warranty beyond the minimum | 10 percent

The technical quality is judged by a jury of three: the duty engineer, Dr. Okafor for the fish, and an engineer of the
neighbouring cooperative at Sedge Lock. A bid needs at least half of the points for quality, whatever its price.
---
# 6. Time and penalties

The order is placed in July 2025. The rack must be in service on 14 November 2025, before the leaves of the beeches come
down the river. For each day of delay the contractor pays a penalty of 350 euros, up to five percent of the price. For
each day that Agnes stands still beyond the 21 days, the contractor pays the lost production in addition.

# 7. Payment

The price is paid in four parts: 20 percent with the order, 40 percent on delivery to the site, 30 percent when the rack
is taken over, and the rest after the first winter. Invoices are paid within 30 days. Prices are fixed; the price of
steel is the risk of the contractor.

# 8. Warranty

The warranty for the rack is at least 60 months, and for the control of the rake at least 24 months. During the warranty
a fitter comes within two working days of a call. Bars that are bent by timber count as wear only if the trunk was
heavier than the rake has to lift.

# 9. Working on the site

The contractor works from Monday to Friday between seven and six. No concrete is poured in the river between October and
April, when the trout spawn. A diver may be needed for the sill beam and is part of the price. Lorries of more than 26
tonnes cannot cross the bridge at Lower Millbrook. Power and water are free; a room with a stove is lent in the sawmill.
"""

CLARA = """
Acceptance report of the screw, unit 3
Tests of 11 and 12 September 2018. Written by Halvard Dahl, independent engineer, for both parties.

# 1. The machine

Unit 3 is an Archimedes screw, made by the firm Rivermark at Sundby and delivered in one piece on 2 July 2018. The
screw has three flights, an outer diameter of 2.3 metres and a length of 9.1 metres. It weighs 13.5 tonnes. The
gearbox has a ratio of 36 to 1 and drives a generator with permanent magnets, whose current goes through an inverter.

# 2. How it was tested

The flow was measured with a current meter at 48 points in the upper channel, and the power at the terminals of the
inverter. The levels were read on two gauges that were levelled on the morning of the first day. The weather was dry and
the river steady; the head changed by less than 2 centimetres during any of the tests.

# 3. Power and efficiency

| Flow | Head | Power | Efficiency
| 0.6 m³/s | 3.41 m | 13.9 kW | 69.2 percent
| 1.3 m³/s | 3.40 m | 34.2 kW | 78.9 percent
| 2.0 m³/s | 3.39 m | 55.3 kW | 83.1 percent
| 2.6 m³/s | 3.38 m | 72.9 kW | 84.6 percent

At full flow the screw reached an efficiency of 84.6 percent from water to wire. The contract had asked for 82 percent.
The output is limited to 62 kilowatts by the permit, and the inverter was set accordingly after the tests.
---
# 4. Noise and vibration

The noise of the screw was 58 decibels at a distance of ten metres, with the trough open. The contract had allowed
62 decibels. The engineer advises a cover all the same, because the slapping of the flights carries far on still nights.

The vibration of the gearbox was 1.9 millimetres a second at its worst point, the bearing on the generator side. The
limit is 2.8 millimetres a second. The vibration grew to 2.4 when a plank was put into the screw on purpose; the control
noticed the plank and stopped the screw after four seconds.

# 5. Safety tests

The emergency stop was pressed at full power. The screw stood still after 6.5 seconds, and the brake became 71 °C warm.
The upper gate closes without current in 38 seconds. When the grid was cut off, the speed rose from 28 to 33 turns a
minute before the brake caught it.

The railing of the trough was found to be 4 centimetres too low and has been raised.
---
# 6. Defects

- The seal of the lower bearing dripped; it was changed on 19 September.
- Paint was missing on two flights, on an area of about a hand each.
- The handbook of the inverter was delivered in Danish only.
- A lamp in the inspection shaft did not light.

None of the defects hinders the use of the machine. The maker has until 31 October 2018 to remove the remaining ones.

# 7. Acceptance

The cooperative takes over unit 3 with effect from 13 September 2018. From this day the warranty of five years begins to
run, and the risk passes to the cooperative. The last part of the price, 24,000 euros, is paid when the defects are
removed.

# 8. Advice for the first years

Look at the lower bearing each week for the first half-year. Measure the gap between the screw and the trough every
autumn: it was 5 millimetres when new, and the trough has to be lined again when the gap has grown to 11 millimetres.
Keep a record of every plank, ball and traffic cone that passes through; the maker collects such stories.
"""


if __name__ == "__main__":
    make("emergency-plan.pdf", EMERGENCY_PLAN)
    make("insurance-policy.pdf", INSURANCE)
    make("tender-trash-rack.pdf", TENDER)
    make("acceptance-report-clara.pdf", CLARA)
